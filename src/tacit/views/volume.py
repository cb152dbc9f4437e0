"""Views of volumes: boxes of them, resized or as they are, mirrored, in another light."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tacit.core.draws import Draws
from tacit.core.errors import TacitError
from tacit.data.spec import Batch, Spec
from tacit.data.window import Box
from tacit.views.geometry import _taps as taps_along  # what a crop with its resize takes along one axis
from tacit.views.normalise import Normalise, statistics
from tacit.views.taps import along
from tacit.views.volume_crops import crop_around

Extent = tuple[int, int, int]


@dataclass(frozen=True)
class Light:
    """Amplitudes of random changes of values in `[0, 1]`: `x^g * s + b`, cut off at 0 and 1.

    Attributes:
        scale: s is uniform over `[1 - a, 1 + a]`.
        shift: b is uniform over `[-a, a]`.
        gamma: log g is uniform over `[-a, a]`.
    """

    scale: float = 0.0
    shift: float = 0.0
    gamma: float = 0.0

    def __call__(self, x: Tensor, draws: Draws) -> Tensor:
        chances = draws.uniform("light", 3, low=-1.0)[:, :, None, None, None, None]  # [B, 3, 1, 1, 1, 1]
        return (x ** (self.gamma * chances[:, 0]).exp() * (1 + self.scale * chances[:, 1]) + self.shift * chances[:, 2]).clamp(
            0, 1
        )


@dataclass(frozen=True)
class VolumeView:
    """A random view, float32 `[B, C, *extent]`: a box anywhere, flips, light, normalisation.

    Attributes:
        extent: of the view, in voxels.
        zoom: least and greatest side of the box, as a share of the largest box of this shape that the sample has; it is
            resized. None for boxes of `extent` voxels as they are, of which nothing else is decoded; what a sample lacks is
            darkness around it.
        flip: chance of mirroring along each axis.
        light: how values are changed; None for not at all.
        normalise: as in `ImageView`.
    """

    extent: Extent
    zoom: tuple[float, float] | None = (0.6, 1.0)
    flip: tuple[float, float, float] = (0.0, 0.0, 0.0)
    light: Light | None = None
    normalise: Normalise = "data"

    def __post_init__(self) -> None:
        if self.zoom is not None and not 0 < self.zoom[0] <= self.zoom[1] <= 1:
            raise TacitError(f"zoom of a view is {self.zoom}; give two shares with 0 < low <= high <= 1")

    @property
    def window(self) -> Box | None:
        return Box(self.extent) if self.zoom is None else None

    def __call__(self, batch: Batch, draws: Draws, spec: Spec) -> Tensor:
        flips = draws.uniform("flip", 3) < torch.tensor(self.flip, device=batch.data.device)
        if self.zoom is None:
            x = crop_around(to_unit(batch.data, spec), batch.sizes.long() // 2, self.extent, batch.sizes)
            for axis in range(3):
                x = torch.where(flips[:, axis, None, None, None, None], x.flip(axis + 2), x)
        else:
            share = draws.uniform("zoom", low=self.zoom[0], high=self.zoom[1])
            sides = (largest_box(batch.sizes, self.extent) * share[:, None]).round().clamp(min=1)
            corners = (draws.uniform("corner", 3) * (batch.sizes - sides + 1)).floor()
            x = to_unit(resized(batch.data, batch.sizes, corners, sides, self.extent, flips), spec)
        if self.light is not None:
            x = self.light(x, draws)
        return normalised(x, self.normalise, spec)


@dataclass(frozen=True)
class CentreVolume:
    """The view that evaluation sees, float32 `[B, C, *extent]`: the largest box of its shape in the middle, resized."""

    extent: Extent
    normalise: Normalise = "data"

    def __call__(self, batch: Batch, draws: Draws, spec: Spec) -> Tensor:  # noqa: ARG002  (nothing is drawn)
        sides = largest_box(batch.sizes, self.extent).round().clamp(min=1)
        corners = ((batch.sizes - sides) / 2).floor()
        return normalised(to_unit(resized(batch.data, batch.sizes, corners, sides, self.extent), spec), self.normalise, spec)


def largest_box(sizes: Tensor, extent: Sequence[int]) -> Tensor:
    """float32 `[B, 3]`: sides of the largest box with the proportions of `extent` in samples of these sizes `[B, 3]`."""
    shape = torch.tensor(extent, dtype=torch.float32, device=sizes.device)
    return (sizes / shape).amin(dim=1, keepdim=True) * shape


def resized(
    data: Tensor, sizes: Tensor, corners: Tensor, sides: Tensor, out: Sequence[int], flips: Tensor | None = None
) -> Tensor:
    """Every sample's box, enlarged or reduced to one extent: linear, and widened where it reduces (antialiasing).

    Args:
        data: `[B, C, X, Y, Z]` of any real dtype.
        sizes: int `[B, 3]`, true sides within the padding.
        corners, sides: `[B, 3]`, of the boxes, in voxels.
        out: the extent.
        flips: bool `[B, 3]`, along which axes to mirror.

    Returns:
        float32 `[B, C, *out]`, in the units of `data`.
    """
    x = data.to(torch.float32, memory_format=torch.contiguous_format)
    for axis in range(3):
        taps = taps_along(
            data.shape[axis + 2], sizes[:, axis], corners[:, axis], sides[:, axis], out[axis],
            None if flips is None else flips[:, axis], "bilinear", torch.float32,
        )  # fmt: skip
        x = along(x, axis + 2, taps)
    return x.contiguous()


def to_unit(x: Tensor, spec: Spec) -> Tensor:
    """From the units of the data to `[0, 1]`, float32; what lies beyond its robust extremes is cut off."""
    return ((x.to(torch.float32) - spec.low) / (spec.high - spec.low)).clamp(0, 1)


def normalised(x: Tensor, normalise: Normalise, spec: Spec) -> Tensor:
    """Values in `[0, 1]` as an encoder sees them."""
    mean, std = (each.to(x)[:, None, None, None] for each in statistics(normalise, spec))
    return (x - mean) / std
