"""Pictures with captions. The picture is an image in every respect; captions lie in a column of the index.

Nothing is taken for pairs by itself: to most methods a picture with a caption is a picture. Methods of pairs take pictures so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tacit.data.kinds import image
from tacit.data.kinds.image import (
    agree,
    channel_names,
    decode,
    extensions,
    form,
    gather,
    glance,
    mask,
    picture,
    pixels,
    seeks,
    together,
    traits,
    unit,
)
from tacit.data.kinds.kind import Sniffed
from tacit.data.payload import Payload

if TYPE_CHECKING:
    from tacit.data.survey import Survey

__all__ = [
    "agree",
    "channel_names",
    "decode",
    "extensions",
    "form",
    "gather",
    "glance",
    "mask",
    "picture",
    "pixels",
    "seeks",
    "together",
    "traits",
    "unit",
]

name = "pair"
default_encoder = "clip-vit-micro/8"


def sniff(names: Sequence[str], first: Payload | None) -> Sniffed:
    return Sniffed(0.0, "pairs are taken for pairs where they are asked for")


def checks(survey: Survey) -> list[str]:
    found = image.checks(survey)
    said = [caption for caption in survey.captions if caption.strip()]
    if not said:
        return [*found, "there are no captions: a column 'caption' of a manifest has them, or a `.txt` beside each picture"]
    if silent := len(survey.captions) - len(said):
        found.append(f"{silent / len(survey.captions):.1%} of the pictures have no caption")
    counts = Counter(said)
    if len(counts) < len(said):
        caption, times = counts.most_common(1)[0]
        found.append(
            f"{len(counts):,} of {len(said):,} captions differ; the most frequent, {caption[:60]!r}, stands {times} times: "
            "pairs of one caption are no negatives of each other (clip: duplicates=mask)"
        )
    return found
