"""Images as rows of patches: cut, put back together, embedded."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tacit.core.errors import TacitError


def patchify(images: Tensor, patch: int) -> Tensor:
    """Cut images into patches, row by row: `[B, C, H, W]` -> `[B, L, patch * patch * C]`.

    Inside a patch the order is row, column, channel, with the channel fastest. H and W are multiples of `patch`.
    """
    cells = images.unflatten(3, (-1, patch)).unflatten(2, (-1, patch))  # [B, C, h, p, w, p]
    return cells.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


def unpatchify(patches: Tensor, patch: int, grid: Sequence[int]) -> Tensor:
    """The inverse of `patchify`: `[B, h * w, patch * patch * C]` -> `[B, C, h * patch, w * patch]`."""
    cells = patches.unflatten(2, (patch, patch, -1)).unflatten(1, tuple(grid))  # [B, h, w, p, p, C]
    return cells.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)


class PatchEmbed(nn.Module):
    """Each patch through one linear map. Only patches that are kept are read.

    The weight has a convolution's shape `[D, C, p, p]` and timm's name, `proj.weight`.
    """

    def __init__(self, channels: int, width: int, patch: int) -> None:
        super().__init__()
        self.patch = patch
        self.proj = nn.Conv2d(channels, width, kernel_size=patch, stride=patch)

    def grid(self, extent: Sequence[int]) -> tuple[int, ...]:
        """Rows and columns of whole patches in an image; what is left at the bottom and right is not seen."""
        return tuple(side // self.patch for side in extent)

    def whole(self, extent: Sequence[int]) -> tuple[int, ...]:
        """As `grid`; a `TacitError` where an image holds no patch."""
        if not all(grid := self.grid(extent)):
            raise TacitError(f"images smaller than a patch of {self.patch} pixels; enlarge them or use a smaller patch")
        return grid

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """`[B, C, H, W]` -> `[B, L, D]`, or `[B, k, D]` for the places `keep [B, k]` in their order."""
        p, (h, w) = self.patch, self.grid(x.shape[2:])
        cells = x[..., : h * p, : w * p].unflatten(3, (w, p)).unflatten(2, (h, p))
        cells = cells.permute(0, 2, 4, 1, 3, 5)  # [B, h, w, C, p, p], still a view
        if keep is None:
            cells = cells.flatten(1, 2)
        else:
            rows = torch.arange(len(x), device=x.device)[:, None]
            cells = cells[rows, keep // w, keep % w]
        return F.linear(cells.flatten(2), self.proj.weight.flatten(1), self.proj.bias)
