"""Which places are hidden: ranked by given uniforms, so that the same numbers hide the same places on every device.

A rule says `mask`; `Hidden` carries it in the three forms that a masked method needs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tacit.core.draws import Draws
from tacit.core.errors import TacitError


class Hidden(NamedTuple):
    """What is seen and what is hidden of `L` places, for every sample; all samples keep equally many.

    Attributes:
        keep: int64 `[B, k]`, the places that are seen, in the order in which they are to be encoded.
        mask: `[B, L]` in image order, 1 where hidden and 0 where seen.
        restore: int64 `[B, L]`, where each place lies once the hidden ones are appended to the seen ones.
    """

    keep: Tensor
    mask: Tensor
    restore: Tensor


def kept(length: int, ratio: float) -> int:
    """How many of `length` places are seen: the *floating* product is truncated (50 at 0.9 keep 4, as in the official code)."""
    count = int(length * (1 - ratio))
    if not 0 < count <= length:
        raise TacitError(f"a mask ratio of {ratio} leaves {count} of {length} patches to see; lower it, or use smaller patches")
    return count


def random_keep(noise: Tensor, ratio: float) -> Hidden:
    """Keep the places with the smallest noise, in the order of the noise (MAE).

    Args:
        noise: `[B, L]`, uniform numbers; equal ones keep their order.
        ratio: share of the places to hide, in `[0, 1)`.
    """
    count = kept(noise.shape[1], ratio)
    shuffle = noise.argsort(dim=1, stable=True)
    mask = torch.ones_like(noise).scatter_(1, shuffle[:, :count], 0)
    return Hidden(shuffle[:, :count], mask, shuffle.argsort(dim=1))


def keep_of(mask: Tensor) -> Hidden:
    """The three forms of a given mask `[B, L]` (1 hidden, 0 seen) with equal counts: seen places come in image order."""
    shuffle = mask.argsort(dim=1, stable=True)
    return Hidden(shuffle[:, : int((mask[0] == 0).sum())], mask, shuffle.argsort(dim=1))


def grid_mask(grid: Sequence[int]) -> Tensor:
    """float32 `[h * w]`: only the top-left place of every 2x2 cell is seen, a ratio of 0.75 for even grids."""
    mask = torch.ones(*grid)
    mask[::2, ::2] = 0
    return mask.flatten()


def block_mask(draws: Draws, grid: Sequence[int], count: int, smallest: float | None = None) -> Tensor:
    """Hide rectangles until exactly `count` places are hidden, for every sample (BEiT's rule).

    Args:
        draws: the samples' draws; how many numbers one needs has no bound, so a loop on the CPU consumes them.
        grid: rows and columns.
        count: places to hide, at most all.
        smallest: smallest area of a rectangle in places; by default 8 % of the grid, as 16 of 196.

    Returns:
        float32 `[B, h * w]` on the draws' device, 1 where hidden.
    """
    smallest = max(1.0, round(0.08 * math.prod(grid))) if smallest is None else smallest
    room = (min(grid) - 1) * (max(grid) - 1)
    if smallest > room:
        raise TacitError(f"a block mask needs a grid that a block of {smallest:g} patches fits into, not {grid[0]}x{grid[1]}")
    length = 256
    while True:
        # Longer streams begin with the same numbers: trying again changes no sample that was done.
        streams = draws.uniform("blocks", length).tolist()
        masks = [hide_blocks(iter(stream), grid, count, smallest) for stream in streams]
        done = [mask for mask in masks if mask is not None]
        if len(done) == len(masks):
            return torch.stack(done).to(draws.samples.device)
        length *= 2


def hide_blocks(
    stream: Iterator[float], grid: Sequence[int], count: int, smallest: float, aspect: float = 0.3
) -> Tensor | None:
    """One sample's mask, float32 `[h * w]`, from a stream of uniform numbers; None if the stream ends too early.

    Each attempt takes two numbers (area, aspect) and, if the shape is strictly smaller than the grid, two more (top, left).
    A rectangle that hides nothing new, or more than is still wanted, is refused.
    """
    rows, columns = grid
    mask, hidden = torch.zeros(rows, columns), 0
    steepest = math.log(aspect)
    try:
        while hidden < count:
            wanted = count - hidden
            area = smallest + (wanted - smallest) * next(stream)
            ratio = math.exp(steepest - 2 * steepest * next(stream))
            height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if height >= rows or width >= columns:
                continue
            top = math.floor(next(stream) * (rows - height + 1))
            left = math.floor(next(stream) * (columns - width + 1))
            block = mask[top : top + height, left : left + width]
            new = height * width - int(block.sum())
            if 0 < new <= wanted:
                block.fill_(1)
                hidden += new
    except StopIteration:
        return None
    return mask.flatten()
