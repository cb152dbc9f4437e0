"""Lists of ids as rows of one length, and back to no more columns than needed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tacit.core.errors import TacitError


def pack(ids: Sequence[Sequence[int]], context: int, start: int, end: int, pad: int = 0) -> Tensor:
    """`start ids end pad pad ...` for each text; one that is too long is cut, and still ends in `end`.

    Args:
        ids: of each text, without start and end; an empty text has none.
        context: C, at least 2.
        start, end, pad: ids; what follows the end is never looked at, so `pad` may be an ordinary id.

    Returns:
        int64 `[B, C]`.
    """
    if context < 2:
        raise TacitError(f"a context of {context} tokens has no room for start and end; give 2 at least")
    tokens = torch.full((len(ids), context), pad, dtype=torch.int64)
    for row, text in zip(tokens, ids, strict=True):
        seen = [start, *text[: context - 2], end]
        row[: len(seen)] = torch.tensor(seen)
    return tokens


def trim(tokens: Tensor, end: int) -> Tensor:
    """Cut off the columns behind the last end token of a batch: int64 `[B, C]` -> `[B, c]`; all stay if a text has none.

    A trunk that reads from left to right says the same about what is left, in less time. Reads tokens back from their device.
    """
    if not len(tokens):
        return tokens
    places = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)
    length = torch.where(tokens == end, places, tokens.shape[1]).amin(dim=1).max()
    return tokens[:, : int(length)]


def fitting_context(lengths: Sequence[int], share: float = 0.99, most: int = 32) -> int:
    """A context in which this share of texts fits whole, of `most` tokens at most: their quantile of `lengths`, and 2.

    Args:
        lengths: ids of each text, without start and end; one at least.
        share: of texts, in `(0, 1]`.
        most: of start, ids and end.
    """
    place = math.ceil(share * len(lengths)) - 1
    return min(sorted(lengths)[place] + 2, most)
