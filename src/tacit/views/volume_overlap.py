"""Two crops of one volume that overlap, each of its own size and in its own light, and where in the volume they lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tacit.core.draws import Draws
from tacit.data.spec import Batch, Spec
from tacit.views.normalise import Normalise
from tacit.views.volume import Extent, Light, normalised, resized, to_unit


@dataclass(frozen=True)
class OverlapView:
    """A crop, float32 `[B, C, *extent]`, always inside of its volume: an axis with fewer voxels than that comes whole.

    Attributes:
        which: the `first` crop lies anywhere; the middle of the `second` is at most half a side from the first one's along
            each axis. `places` is where both lie, float32 `[B, 2, 6]`: the corner, and voxels of the volume to one of the crop.
        extent: of the crop.
        zoom: boxes are up to so much smaller or larger than the extent, as a share of it; they are resized.
        light: how values are changed, in each crop for itself; None for not at all.
        normalise: as in `ImageView`.
    """

    which: Literal["first", "second", "places"]
    extent: Extent
    zoom: float = 0.2
    light: Light | None = None
    normalise: Normalise = "data"

    def __call__(self, batch: Batch, draws: Draws, spec: Spec) -> Tensor:
        corners, sides = self.boxes(batch.sizes, Draws(draws.seed, draws.epoch, draws.samples, "overlap/"))
        if self.which == "places":
            return torch.cat([corners, sides / sides.new_tensor(self.extent)], dim=2)
        turn = int(self.which == "second")
        x = to_unit(resized(batch.data, batch.sizes, corners[:, turn], sides[:, turn], self.extent), spec)
        return normalised(x if self.light is None else self.light(x, draws), self.normalise, spec)

    def boxes(self, sizes: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """Corners and sides of both boxes in whole voxels, float32 `[B, 2, 3]` each, in volumes of these sizes `[B, 3]`."""
        zoom = draws.uniform("zoom", 2, low=1 - self.zoom, high=1 + self.zoom)
        sides = (zoom[..., None] * zoom.new_tensor(self.extent)).round().clamp(min=1).minimum(sizes[:, None])
        room = sizes[:, None] - sides
        first = (draws.uniform("corner", 3) * (room[:, 0] + 1)).floor()
        middle = first + (0.5 + draws.uniform("shift", 3, low=-0.5, high=0.5)) * sides[:, 0]
        second = (middle - sides[:, 1] / 2).round().clamp(min=0).minimum(room[:, 1])
        return torch.stack([first, second], dim=1), sides


def cell_places(places: Tensor, grid: Sequence[int], stride: int) -> Tensor:
    """Centres of a crop's cells in its volume, float `[B, cells, 3]`, the last axis fastest.

    Args:
        places: `[B, 6]`, see `OverlapView`.
        grid: cells along each axis.
        stride: voxels of the crop to a cell.
    """
    axes = [(torch.arange(side, device=places.device, dtype=places.dtype) + 0.5) * stride for side in grid]
    cells = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 2)
    return places[:, None, :3] + cells * places[:, None, 3:]
