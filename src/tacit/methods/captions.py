"""What methods that read captions ask of them, where `auto` chooses."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache

from tacit.data.text.pack import fitting_context
from tacit.data.text.tokenizer import BASE
from tacit.data.text.wording import Wording

SMALL = BASE + 2002
"""Ids of a tokenizer for small data: 2,000 pairs, start and end."""

MOST = 32
"""Tokens that a caption of small data may have."""

SIDES = r"\b(left|right)\b"
LAYOUT = (
    rf"{SIDES}|\b((at|on|the) (top|bottom)|up|down|upper|lower|above|below|under|corner|cent(er|re)|middle|north"
    r"|south|east|west|small|large|big|tiny|huge|little|one|two|three|four|five|six|seven|eight|nine|ten|many|several|\d+)\b"
)
"""Words that a crop, or a mirror, would make untrue."""

SAYS = 0.01
"""Captions say a thing where this share of them does."""


def alike(captions: tuple[str, ...]) -> float:
    """How probable it is that two samples have the same caption, from some of them."""
    count = len(captions)
    return sum(times * (times - 1) for times in Counter(captions).values()) / max(1, count * (count - 1))


def says(captions: tuple[str, ...], words: str) -> bool:
    """Whether more than a few captions have one of these words."""
    return sum(bool(re.search(words, caption, re.IGNORECASE)) for caption in captions) > SAYS * len(captions)


@cache
def fitting(captions: tuple[str, ...]) -> int:
    """A context for such captions, by a tokenizer learned from them."""
    if not captions:
        return MOST
    lengths = [len(ids) for ids in Wording(SMALL, MOST).trained(captions).ids(captions)]
    return max(3, fitting_context(lengths, most=MOST))
