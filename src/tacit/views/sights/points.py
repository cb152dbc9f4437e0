"""How clouds of points are shown where no method has a say: as they stand, or turned and thinned."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tacit.data.spec import Spec
from tacit.data.window import Spread
from tacit.views.points import PointView

coarse = (4096,)
varied = "points and their values"

CELLS = 8
"""Along each axis, of the histogram that raw input is compared by."""

REACH = 2 / 3
"""Half of what the histogram covers, in the views' units: a little more than an evenly filled box."""


def window(spec: Spec, extent: Sequence[int]) -> Spread:
    return Spread(extent[0])


def looks(spec: Spec, extent: Sequence[int]) -> tuple[()]:
    return ()


def still(extent: Sequence[int]) -> PointView:
    return PointView(extent[0])


def told(spec: Spec, extent: Sequence[int]) -> tuple[str, ...]:
    return (
        f"take up to {extent[0]} of the n points, evenly spread: point floor((i + 0.5) n / {extent[0]}) where there are more",
        "coordinates: x = (p - mean) / (3 s), where s is the root of the mean of the three squared std",
        "features: x = (value - mean) / (2 std), one by one",
        "put each in a row, with a last row that is 1 where there is a point; where there is none, everything is 0",
    )


def crops(extent: Sequence[int]) -> PointView:
    return PointView(extent[0], turn="free", kept=0.7)


def light(extent: Sequence[int]) -> PointView:
    return PointView(extent[0], kept=0.9, values=0.5)


def tuning(extent: Sequence[int], mirrored: float) -> PointView:
    return PointView(extent[0], turn="upright", kept=0.8)


def flat(x: Tensor) -> Tensor:
    """The share of a cloud's points in each cell, as a root, and the mean of their features there: `[B, 512 (1 + F)]`."""
    cell = ((x[:, :3] / REACH + 1) * (CELLS / 2)).floor().clamp(0, CELLS - 1).long()
    index = (cell[:, 0] * CELLS + cell[:, 1]) * CELLS + cell[:, 2]  # [B, N]
    there = x[:, -1:]
    held = torch.cat([there, x[:, 3:-1] * there], dim=1)
    sums = held.new_zeros(*held.shape[:2], CELLS**3).scatter_add(2, index[:, None].expand_as(held), held)
    share = (sums[:, :1] / there.sum(2, keepdim=True).clamp(min=1)).sqrt()
    return torch.cat([share, sums[:, 1:] / sums[:, :1].clamp(min=1)], dim=1).flatten(1)
