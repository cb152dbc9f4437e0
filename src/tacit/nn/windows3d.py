"""Attention inside the windows of a 3D map."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tacit.nn.blocks import looks, whole_heads

_CUT = -100.0
"""What is added where two tokens share a window but were no neighbours before the shift, or where one is padding."""


class _Windowed(nn.Module):
    """What window attentions share: the bias of each offset, and the way into windows and back.

    Args:
        width: D.
        heads: how many; a divisor of the width.
        window: side in cells. Where the map is no larger, the map is the window, and nothing is shifted.
        shifted: move the windows by half their side.
    """

    def __init__(self, width: int, heads: int, window: int, shifted: bool = False) -> None:
        super().__init__()
        self.heads, self.window, self.shifted = whole_heads(width, heads), window, shifted
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 3, heads))
        self.proj = nn.Linear(width, width)

    def _attend(self, qkv: Tensor) -> Tensor:
        """Queries, keys and values one after another, `[B, X, Y, Z, 3 D]` -> `[B, X, Y, Z, D]`."""
        grid = qkv.shape[1:4]
        window = [min(self.window, side) for side in grid]
        shift = [self.window // 2 if self.shifted and side > self.window else 0 for side in grid]
        full = [-(-side // w) * w for side, w in zip(grid, window, strict=True)]
        moved, padded = any(shift), full != list(grid)
        x = F.pad(qkv, (0, 0, 0, full[2] - grid[2], 0, full[1] - grid[1], 0, full[0] - grid[0])) if padded else qkv
        x = cut(x.roll([-s for s in shift], dims=(1, 2, 3)) if moved else x, window)  # [B, N, n, 3 D]
        q, k, v = x.unflatten(-1, (3, self.heads, -1)).permute(3, 0, 1, 4, 2, 5)  # each [B, N, heads, n, d]
        index = relative_index(window, self.window, qkv.device)
        bias = self.relative_position_bias_table[index].movedim(-1, 0)  # [heads, n, n]
        if moved or padded:
            bias = bias + apart(grid, full, window, shift, bias)[:, None]  # [N, heads, n, n]
        x = join((looks(q, k, bias).to(v.dtype) @ v).transpose(2, 3).flatten(3), window, full)  # [B, *full, D]
        x = x.roll(shift, dims=(1, 2, 3)) if moved else x
        return self.proj(x[:, : grid[0], : grid[1], : grid[2]])


class WindowAttention(_Windowed):
    """Self-attention of a map inside its windows (Liu et al. 2021, in three dimensions)."""

    def __init__(self, width: int, heads: int, window: int, shifted: bool = False) -> None:
        super().__init__(width, heads, window, shifted)
        self.qkv = nn.Linear(width, 3 * width)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, X, Y, Z, D]` -> the same."""
        return self._attend(self.qkv(x))


class CrossWindowAttention(_Windowed):
    """Each cell asks the cells of its window in another map; queries are taken as they are, without a projection (nnFormer)."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__(width, heads, window)
        self.kv = nn.Linear(width, 2 * width)

    def forward(self, query: Tensor, other: Tensor) -> Tensor:
        """`[B, X, Y, Z, D]` twice -> the same."""
        return self._attend(torch.cat([query, self.kv(other)], dim=-1))


def cut(x: Tensor, window: Sequence[int]) -> Tensor:
    """A map in windows that divide it: `[B, X, Y, Z, C]` -> `[B, N, n, C]`, the last axis fastest in both."""
    a, b, c = window
    x = x.unflatten(3, (-1, c)).unflatten(2, (-1, b)).unflatten(1, (-1, a))  # [B, X/a, a, Y/b, b, Z/c, c, C]
    return x.permute(0, 1, 3, 5, 2, 4, 6, 7).flatten(4, 6).flatten(1, 3)


def join(x: Tensor, window: Sequence[int], grid: Sequence[int]) -> Tensor:
    """The inverse of `cut`: `[B, N, n, C]` -> `[B, *grid, C]`."""
    x = x.unflatten(2, tuple(window)).unflatten(1, [side // w for side, w in zip(grid, window, strict=True)])
    return x.permute(0, 1, 4, 2, 5, 3, 6, 7).flatten(5, 6).flatten(3, 4).flatten(1, 2)


def relative_index(window: Sequence[int], reach: int, device: torch.device | None = None) -> Tensor:
    """Which row of a table of `(2 reach - 1)**3` offsets belongs to each pair of places: int64 `[n, n]`, query by key.

    Every offset has a row of its own, whatever part of the `reach` a window uses.
    """
    places = torch.cartesian_prod(*(torch.arange(side, device=device) for side in window)).view(-1, 3)
    x, y, z = (places[:, None] - places[None] + reach - 1).unbind(-1)
    return (x * (2 * reach - 1) + y) * (2 * reach - 1) + z


def apart(grid: Sequence[int], full: Sequence[int], window: Sequence[int], shift: Sequence[int], like: Tensor) -> Tensor:
    """-100 between tokens of a window that must not see each other, else 0: `[N, n, n]`.

    Args:
        grid, full: sides of the map without and with padding.
        window, shift: along each axis; a shift of 0 leaves the axis as it is.
        like: whose dtype and device are wanted.
    """
    label = torch.zeros(1, 1, 1, dtype=torch.int64, device=like.device)
    for axis, (side, whole, s) in enumerate(zip(grid, full, shift, strict=True)):
        place = torch.arange(whole, device=like.device)
        region = (place >= whole - s).long()  # these came round from the other end
        region = torch.where((place + s) % whole >= side, 2, region)
        shape = [1, 1, 1]
        shape[axis] = whole
        label = 3 * label + region.view(shape)
    label = cut(label[None, ..., None], window)[0, :, :, 0]  # [N, n]
    return (label[:, :, None] != label[:, None, :]).to(like.dtype) * _CUT
