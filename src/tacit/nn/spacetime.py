"""Clips as rows of tubelets, small boxes of frames, rows and columns: cut, put back together, embedded, placed.

Tokens are time-major: all tubelets of the first frames, row by row, then those of the next frames.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tacit.core.errors import TacitError
from tacit.nn.positions import resample


def tubelets(clips: Tensor, frames: int, patch: int) -> Tensor:
    """Cut clips: `[B, C, T, H, W]` -> `[B, L, frames * patch * patch * C]`.

    Inside a tubelet the order is frame, row, column, channel, with the channel fastest (MAE-ST). T is a multiple of `frames`,
    H and W are multiples of `patch`.
    """
    rows = torch.stack(clips.unbind(1), dim=-1).flatten(3)  # [B, T, H, W * C]: what is moved then are whole rows of a tubelet
    cells = rows.unflatten(3, (-1, patch * clips.shape[1])).unflatten(2, (-1, patch)).unflatten(1, (-1, frames))
    return cells.permute(0, 1, 3, 5, 2, 4, 6).flatten(4).flatten(1, 3)  # from [B, t, u, h, p, w, p * C]


def untubelets(rows: Tensor, frames: int, patch: int, grid: Sequence[int]) -> Tensor:
    """The inverse of `tubelets`, for a grid of time slots, rows and columns: -> `[B, C, T, H, W]`."""
    cells = rows.unflatten(2, (frames, patch, patch, -1)).unflatten(1, tuple(grid))  # [B, t, h, w, u, p, p, C]
    return cells.permute(0, 7, 1, 4, 2, 5, 3, 6).flatten(6).flatten(4, 5).flatten(2, 3)


def predicted_frames(frames: int, tubelet: int, count: int) -> tuple[Tensor, int]:
    """Which frames of a clip a decoder predicts, and how many of them each tubelet holds (`pred_t_dim` of MAE-ST).

    Args:
        frames: T, of the clip.
        tubelet: frames of a tubelet, a divisor of T.
        count: frames to predict, equally many for each tubelet; T for all.

    Returns:
        int64 `[count]`, evenly spaced from 0 to T - 1 and cut to whole numbers, and `tubelet * count / T`.
    """
    slots, held = frames // tubelet, tubelet * count // frames
    if not 0 < held * slots == count:
        raise TacitError(f"{count} frames cannot be predicted by {slots} time slots; take a multiple of {slots} up to {frames}")
    return torch.arange(count) * (frames - 1) // max(count - 1, 1), held


class TubeletEmbed(nn.Module):
    """Each tubelet through one linear map. Only tubelets that are kept are read.

    The weight has a convolution's shape `[D, C, u, p, p]` and timm's name, `proj.weight`.
    """

    def __init__(self, channels: int, width: int, tubelet: int, patch: int) -> None:
        super().__init__()
        self.tubelet, self.patch = tubelet, patch
        self.proj = nn.Conv3d(channels, width, kernel_size=(tubelet, patch, patch), stride=(tubelet, patch, patch))

    def grid(self, extent: Sequence[int]) -> tuple[int, ...]:
        """Time slots, rows and columns of whole tubelets in a clip; what is left at the ends is not seen."""
        return extent[0] // self.tubelet, extent[1] // self.patch, extent[2] // self.patch

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """`[B, C, T, H, W]` -> `[B, L, D]`, or `[B, k, D]` for the places `keep [B, k]` in their order."""
        u, p, (t, h, w) = self.tubelet, self.patch, self.grid(x.shape[2:])
        cells = x[:, :, : t * u, : h * p, : w * p].unflatten(4, (w, p)).unflatten(3, (h, p)).unflatten(2, (t, u))
        cells = cells.permute(0, 2, 4, 6, 1, 3, 5, 7)  # [B, t, h, w, C, u, p, p], still a view
        if keep is None:
            cells = cells.flatten(1, 3)
        else:
            rows = torch.arange(len(x), device=x.device)[:, None]
            cells = cells[rows, keep // (h * w), keep // w % h, keep % w]
        return F.linear(cells.flatten(2), self.proj.weight.flatten(1), self.proj.bias)


class SpaceTimePositions(nn.Module):
    """Learned positions: one row per time slot plus one per place of a frame, or (`joint`) a row for every token.

    Args:
        width: D.
        grid: time slots, rows and columns that the tables are made for.
        class_token: whether the class token has a position of its own.
        joint: one table over all tokens instead of the sum of two.
    """

    def __init__(self, width: int, grid: Sequence[int], class_token: bool = True, joint: bool = False) -> None:
        super().__init__()
        self.slots, self.places = grid[0], tuple(grid[1:])
        spatial = math.prod(self.places) * (self.slots if joint else 1)
        self.spatial = nn.Parameter(torch.zeros(1, spatial, width))
        self.temporal = None if joint else nn.Parameter(torch.zeros(1, self.slots, width))
        self.cls = nn.Parameter(torch.zeros(1, 1, width)) if class_token else None

    def forward(self, grid: Sequence[int]) -> Tensor:
        """The positions `[L, D]` of a grid: frames may have another size (bicubic), time slots are as many as they were."""
        if grid[0] != self.slots:
            raise TacitError(
                f"clips with {grid[0]} time slots, but positions were learned for {self.slots}; give clips as long as those"
            )
        table = self.spatial.unflatten(1, (-1, math.prod(self.places))).squeeze(0)  # [1 or t, h * w, D]
        if self.places != tuple(grid[1:]):
            table = torch.cat([resample(slot[None], self.places, grid[1:]) for slot in table])
        if self.temporal is not None:
            table = table + self.temporal[0, :, None]
        return table.flatten(0, 1)

    def led(self, token: Tensor | None, x: Tensor) -> Tensor:
        """A class token `[1, 1, D]`, if there is one, with its position in front of tokens `[B, k, D]`."""
        if token is None or self.cls is None:
            return x
        # `len(x)` would fix the batch size of an exported encoder.
        return torch.cat([(token + self.cls).expand(x.shape[0], -1, -1), x], dim=1)


def first_values(trunk: nn.Module) -> None:
    """Weights as in MAE-ST, in an encoder or a decoder.

    Linears Xavier-uniform (q, k and v apart) with zero biases; the embedding Xavier-uniform as a matrix, its bias as it comes;
    tables of positions from N(0, 0.02^2), cut at +-2. Tokens are drawn by those who hold them.
    """
    for name, module in trunk.named_modules():
        if isinstance(module, nn.Linear):
            for part in module.weight.chunk(3 if name.endswith("qkv") else 1):
                nn.init.xavier_uniform_(part)
            nn.init.zeros_(module.bias)
        elif isinstance(module, TubeletEmbed):
            nn.init.xavier_uniform_(module.proj.weight.view(len(module.proj.weight), -1))
        elif isinstance(module, SpaceTimePositions):
            for table in module.parameters():
                nn.init.trunc_normal_(table, std=0.02)
