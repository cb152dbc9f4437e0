"""Which boxes of a volume are hidden: ranked by given numbers, so that the same numbers hide the same boxes everywhere."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tacit.core.errors import TacitError


def hidden_of(length: int, ratio: float) -> int:
    """How many of `length` boxes are hidden: the floating product, rounded *up* (Alice's published code)."""
    count = math.ceil(length * ratio)
    if not 0 < count < length:
        raise TacitError(f"a mask ratio of {ratio} hides {count} of {length} boxes; some have to be seen, take smaller boxes")
    return count


def hide_columns(order: Tensor, grid: Sequence[int], ratio: float) -> Tensor:
    """Hide columns that go through the whole depth, the first ones of the order.

    Args:
        order: int64 `[B, gx * gy]`, a permutation of the columns for every sample, the second axis fastest.
        grid: gx and gy, boxes along the first two axes.
        ratio: share of the columns to hide, in `(0, 1)`.

    Returns:
        float32 `[B, gx, gy, 1]`, 1 where hidden.
    """
    return _hide_first(order, [*grid, 1], ratio)


def hide_boxes(order: Tensor, grid: Sequence[int], ratio: float) -> Tensor:
    """Hide boxes anywhere, the first ones of the order: int64 `[B, gx * gy * gz]` -> float32 `[B, gx, gy, gz]`, 1 where hidden.

    Args:
        order: a permutation of the boxes for every sample, the last axis fastest.
        grid: gx, gy, gz, boxes along the axes.
        ratio: share of the boxes to hide, in `(0, 1)`.
    """
    return _hide_first(order, grid, ratio)


def spread(mask: Tensor, extent: Sequence[int]) -> Tensor:
    """A mask of boxes for every voxel, or every cell of a finer map: `[B, gx, gy, gz]` -> `[B, 1, *extent]`.

    Args:
        mask: 1 where hidden.
        extent: sides, multiples of the mask's; a column's one box along the last axis goes through all of it.
    """
    for axis, (side, boxes) in enumerate(zip(extent, mask.shape[1:], strict=True)):
        if side % boxes:
            raise TacitError(f"a side of {side} does not divide into {boxes} boxes: change the size of either")
        mask = mask.repeat_interleave(side // boxes, dim=axis + 1)
    return mask[:, None]


def _hide_first(order: Tensor, grid: Sequence[int], ratio: float) -> Tensor:
    count = hidden_of(order.shape[1], ratio)
    mask = torch.zeros(order.shape, device=order.device).scatter_(1, order[:, :count], 1.0)
    return mask.unflatten(1, tuple(grid))
