"""Clouds of points `[B, 3 + F, N]`, coordinates first: centred, scaled, turned; their features brought to one range; which of
their tokens are hidden. Whole batches, on their device; every random number is given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from tacit.core.draws import Draws
from tacit.data.spec import Batch, Spec
from tacit.views.normalise import statistics

Turn = Literal["free", "upright", "none"]


@dataclass(frozen=True)
class Scattered:
    """At most so many points, evenly spread over a cloud in its order, from a random start."""

    points: int
    drawn = 1

    def __call__(self, extent: Sequence[int], drawn: Sequence[float]) -> tuple[np.ndarray, ...]:
        there = extent[0]
        if there <= self.points:
            return (np.arange(there),)
        return (np.minimum(((np.arange(self.points) + drawn[0]) * (there / self.points)).astype(np.int64), there - 1),)


@dataclass(frozen=True)
class PointView:
    """Clouds in the data's own measure, float32 `[B, 3 + F + 1, N]`: the last channel is 1 where there is a point.

    The coordinates lose the data's centre and are divided by three times their deviation, which for an evenly filled box is
    half of its diagonal; features lose their mean and are divided by twice their deviation, so that most lie in `[-1, 1]`.

    Attributes:
        points: the loader hands over no more of a cloud than so many.
        turn: `free`, every orientation alike; `upright`, about the third axis; `none`. Each cloud has its own.
        step: angles are multiples of so many degrees; any where None.
        kept: the share of a cloud's points that stay, at least; how many do is drawn.
        values: features are multiplied by up to `1 + values`, or as much less, and moved by up to as much.
    """

    points: int
    turn: Turn = "none"
    step: float | None = None
    kept: float = 1.0
    values: float = 0.0

    @property
    def window(self) -> Scattered:
        return Scattered(self.points)

    def __call__(self, batch: Batch, draws: Draws, spec: Spec) -> Tensor:
        mean, std = (each.to(batch.data.device) for each in statistics("data", spec))
        x = placed(batch.data.float(), mean[:3], 1 / (3 * std[:3].square().mean().sqrt()))
        x = torch.cat([x[:, :3], (x[:, 3:] - mean[3:, None]) / (2 * std[3:, None])], dim=1)
        if self.turn != "none":
            x = turned(x, rotation(angles(draws.uniform("turn", 3), self.step) * x.new_tensor(TURNS[self.turn])))
        if self.values and x.shape[1] > 3:
            shape = (x.shape[1] - 3, 1)
            times, plus = (draws.uniform(f"values.{name}", *shape, low=-1, high=1) for name in ("times", "plus"))
            x = torch.cat([x[:, :3], x[:, 3:] * (1 + self.values) ** times + self.values * plus], dim=1)
        there = torch.arange(x.shape[2], device=x.device) < batch.sizes[:, :1]
        x = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
        if self.kept < 1:
            chance = draws.uniform("kept.share", 1, low=self.kept)
            there &= draws.uniform("kept", x.shape[2]) < chance
            index = places(there)
            there, x = index >= 0, x.gather(2, index.clamp(min=0)[:, None].expand(-1, x.shape[1], -1))
        return x * there[:, None]


TURNS = {"free": (1.0, 1.0, 1.0), "upright": (0.0, 0.0, 1.0)}
"""Which angles about the first, the second and the third axis are drawn."""


def placed(x: Tensor, centre: Tensor, scale: float | Tensor) -> Tensor:
    """`(p - centre) * scale` for the coordinates of `x [B, 3 + F, N]`; `centre [3]` is in their units."""
    moved = (x[:, :3] - centre.to(x)[:, None]) * scale
    return torch.cat([moved, x[:, 3:]], dim=1)


def log_range(value: Tensor, threshold: float, largest: float) -> Tensor:
    """A positive feature over many magnitudes, such as an energy E, brought to about `[-1, 1]` (PoLAr-MAE).

    `2 (log10(E + t) - log10 t) / (log10(E_max + t) - log10 t) - 1`: 0 becomes -1 and `largest` 1.

    Args:
        value: E, any shape, 0 or more; points up to the threshold are to be left out by the caller.
        threshold: t > 0, in the units of E.
        largest: E_max, in the units of E.
    """
    low = math.log10(threshold)
    return 2 * ((value + threshold).log10() - low) / (math.log10(largest + threshold) - low) - 1


def angles(uniform: Tensor, step: float | None = None) -> Tensor:
    """Numbers in `[0, 1)` as angles in `[-pi, pi)`; on a grid of `step` degrees where that is given."""
    if step is None:
        return (2 * uniform - 1) * math.pi
    return (uniform * (360 / step)).floor() * math.radians(step) - math.pi


def rotation(euler: Tensor) -> Tensor:
    """`Rx(a) Ry(b) Rz(c)` of angles `[..., 3]` in radians: `[..., 3, 3]`, to be put before a column of coordinates."""
    (sa, sb, sc), (ca, cb, cc) = euler.sin().unbind(-1), euler.cos().unbind(-1)
    one, zero = torch.ones_like(ca), torch.zeros_like(ca)

    def matrix(*entries: Tensor) -> Tensor:
        return torch.stack(entries, dim=-1).unflatten(-1, (3, 3))

    around_x = matrix(one, zero, zero, zero, ca, -sa, zero, sa, ca)
    around_y = matrix(cb, zero, sb, zero, one, zero, -sb, zero, cb)
    around_z = matrix(cc, -sc, zero, sc, cc, zero, zero, zero, one)
    return around_x @ around_y @ around_z


def turned(x: Tensor, matrix: Tensor) -> Tensor:
    """The coordinates of `x [B, 3 + F, N]` turned by one matrix `[3, 3]`, or by one for each cloud `[B, 3, 3]`."""
    return torch.cat([matrix.to(x) @ x[:, :3], x[:, 3:]], dim=1)


def hide_tokens(uniform: Tensor, lengths: Tensor, ratio: float) -> tuple[Tensor, Tensor]:
    """Hide the tokens with the smallest numbers of each cloud, `floor(ratio * L)` of its L; places after them are neither.

    Args:
        uniform: `[B, T]`; equal numbers keep their order.
        lengths: int `[B]`, L of each cloud.
        ratio: share of the tokens to hide, in `[0, 1)`; the product is one of float32, as published.

    Returns:
        What is hidden and what is seen, bool `[B, T]` each.
    """
    valid = torch.arange(uniform.shape[1], device=uniform.device) < lengths[:, None]
    rank = uniform.masked_fill(~valid, torch.inf).argsort(dim=1, stable=True).argsort(dim=1)
    count = (lengths.float() * torch.tensor(ratio, dtype=torch.float32, device=lengths.device)).long()
    hidden = rank < count[:, None]
    return hidden, valid & ~hidden


def places(mask: Tensor) -> Tensor:
    """Where a ragged mask `[B, T]` is true: int64 `[B, k]`, ascending, then -1; k is the largest count, 1 at least."""
    count = mask.sum(1, keepdim=True)
    order = mask.logical_not().to(torch.uint8).argsort(dim=1, stable=True)[:, : max(int(count.max()), 1)]
    return order.masked_fill(torch.arange(order.shape[1], device=mask.device) >= count, -1)


COLOURS = ((0.75, 0.85, 1.0), (1.0, 0.55, 0.1))


def projected(sets: Sequence[Tensor], frame: Tensor, side: int = 96) -> Tensor:
    """Sets of points from above, on black, each in a colour of its own: `[3, side, side]` in `[0, 1]`.

    Args:
        sets: `[N, 3]` each; a later one lies over those before it.
        frame: `[N, 3]`, the points that fill the picture.
        side: in pixels.
    """
    low, high = frame[:, :2].amin(0), frame[:, :2].amax(0)
    scale = (side - 3) / (high - low).amax().clamp(min=1e-12)
    canvas = frame.new_zeros(3, side * side)
    for points, colour in zip(sets, COLOURS, strict=False):
        at = ((points[:, :2] - (low + high) / 2) * scale + side / 2).floor().long().clamp(0, side - 1)
        index = (side - 1 - at[:, 1]) * side + at[:, 0]
        count = torch.bincount(index, minlength=side * side).to(canvas)
        light = 0.4 + 0.6 * count.log1p() / count.amax().log1p().clamp(min=1e-6)
        canvas = torch.where(count > 0, light * canvas.new_tensor(colour)[:, None], canvas)
    return canvas.reshape(3, side, side)
