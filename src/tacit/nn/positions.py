"""Tables that say where a token lies, and how they are carried to a grid of another shape."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tacit.core.errors import TacitError


def sincos(width: int, grid: Sequence[int], first: str = "column") -> Tensor:
    """Fixed two-dimensional positions, float32 `[h * w, width]`.

    `[sin(u w), cos(u w), sin(v w), cos(v w)]` with `w_k = 10000**(-k / (width / 4))`, `width / 4` of each.

    Args:
        width: length of a row; a multiple of 4.
        grid: rows and columns.
        first: which coordinate is u: `column` as in MAE, or `row` as in MoCo v3 (whose own table is only defined for square
            grids) and CAE.
    """
    if width % 4:
        raise TacitError(f"sin-cos positions need a width that is a multiple of 4, not {width}")
    quarter = width // 4
    frequencies = 10000.0 ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
    row, column = torch.meshgrid(*(torch.arange(side, dtype=torch.float64) for side in grid), indexing="ij")
    u, v = (column, row) if first == "column" else (row, column)
    angles = [coordinate.reshape(-1, 1) * frequencies for coordinate in (u, v)]
    return torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], dim=1).float()


def resample(table: Tensor, old: Sequence[int], new: Sequence[int], offset: float = 0.0) -> Tensor:
    """Carry a table of positions to another grid, bicubically (a = -0.75, borders repeated, no antialiasing).

    Args:
        table: `[1, P + h * w, D]`; the first P rows (class token) are left as they are.
        old, new: rows and columns of the two grids.
        offset: 0 samples by the ratio of the sizes (MAE). DINO adds 0.1 to the new size and samples by that ratio, which
            differs: its weights were trained so.

    Returns:
        `[1, P + h' * w', D]`; the same table where the grids are equal.
    """
    if tuple(old) == tuple(new):
        return table
    prefix = table.shape[1] - math.prod(old)
    cells = table[:, prefix:].unflatten(1, tuple(old)).permute(0, 3, 1, 2)
    if offset:
        scale = [(to + offset) / of for to, of in zip(new, old, strict=True)]
        cells = F.interpolate(cells, scale_factor=scale, mode="bicubic", align_corners=False, recompute_scale_factor=False)
    else:
        cells = F.interpolate(cells, size=tuple(new), mode="bicubic", align_corners=False)
    return torch.cat([table[:, :prefix], cells.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)
