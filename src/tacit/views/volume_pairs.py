"""Two crops that show the same part of the body, of one volume or of two."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from tacit.core.draws import Draws
from tacit.data.loader import PARTNER
from tacit.data.spec import Batch, Spec
from tacit.views.normalise import Normalise
from tacit.views.volume import Extent, normalised, to_unit
from tacit.views.volume_crops import body_box, body_points, crop_around, same_position
from tacit.views.volume_match import Found, Matching

Partner = Literal["matched", "position", "self", "random"]

ANGLE, NOISE = math.radians(15), 0.1


@dataclass(frozen=True)
class PairView:
    """A crop of voxels as they are, float32 `[B, C, *extent]`, dark where the volume ends: one of two that belong together.

    The `query` lies around a random voxel of the body, the `anchor` around the voxel of another volume that stands for the
    same place. That volume is the batch's part `partner`, where there is one; else another sample of the batch.

    Attributes:
        which: `query` or `anchor`; both draw the same point. `score` is how alike the two voxels are, float32 `[B, 1]`.
        extent: of the crop.
        partner: what the anchor shows: the place of another volume that is most alike (`matched`), the same relative
            `position` in its body's box, any place of it (`random`), or the very place in the volume it`self`.
        augment: turn each crop by up to 15 degrees about the vertical and add noise of deviation 0.1.
        normalise: as in `ImageView`.
        matching: what finds the most alike; without it, as long as a step is only tried, `matched` is by position.
        tries: points that are drawn for it.
    """

    which: Literal["query", "anchor", "score"]
    extent: Extent
    partner: Partner = "position"
    augment: bool = False
    normalise: Normalise = "none"
    matching: Matching | None = None
    tries: int = 1

    def __call__(self, batch: Batch, draws: Draws, spec: Spec) -> Tensor:
        shared = Draws(draws.seed, draws.epoch, draws.samples, "pair/")
        other = batch if self.partner == "self" else partner_of(batch, shared)
        found = self.found(batch, other, shared, spec)
        if self.which == "score":
            return found.score
        shown, points = (batch, found.here) if self.which == "query" else (other, found.there)
        x = crop_around(body(shown, spec), points, self.extent, shown.sizes.long())
        return normalised(self.changed(x, draws) if self.augment else x, self.normalise, spec)

    def found(self, batch: Batch, other: Batch, shared: Draws, spec: Spec) -> Found:
        """The voxels that query and anchor lie around."""
        volumes, sizes = body(batch, spec), other.sizes.long()
        points = body_points(volumes, shared.uniform("point", self.tries), batch.sizes.long())
        here, score = points[:, :1], torch.zeros(len(batch), 1, device=points.device)
        if self.partner == "self":
            there = here
        elif self.partner == "random":
            there = body_points(body(other, spec), shared.uniform("any", 1), sizes)
        else:
            there = same_position(here, body_box(volumes), body_box(body(other, spec))).minimum(sizes[:, None] - 1)
        if self.partner == "matched" and self.matching is not None:
            return self.matching(batch, other, points, there[:, 0], shared)
        return Found(here[:, 0], there[:, 0], score)

    def changed(self, x: Tensor, draws: Draws) -> Tensor:
        """Turned within the planes of the last two axes, to the nearest voxel, and with noise."""
        angle = draws.uniform("angle", low=-ANGLE, high=ANGLE).to(x.dtype)
        turn = x.new_zeros(len(x), 3, 4)  # of places (along the last axis, the middle one, the first)
        turn[:, 0, 0], turn[:, 0, 1], turn[:, 1, 0], turn[:, 1, 1] = angle.cos(), -angle.sin(), angle.sin(), angle.cos()
        turn[:, 2, 2] = 1
        x = F.grid_sample(x, F.affine_grid(turn, list(x.shape), align_corners=False), "nearest", align_corners=False)
        return x + NOISE * draws.normal("noise", *x.shape[1:])


def partner_of(batch: Batch, draws: Draws) -> Batch:
    """Another volume for each of the batch: its part of that name, else the next one of the batch in a drawn order.

    One that is alone in its batch is its own.
    """
    if PARTNER in batch.parts:
        return batch.parts[PARTNER]
    order = draws.words("order", 1)[:, 0].argsort(stable=True)
    chosen = torch.empty_like(order)
    chosen[order] = order.roll(-1)
    return batch.each(lambda tensor: tensor[chosen])


def body(batch: Batch, spec: Spec) -> Tensor:
    """Volumes in `[0, 1]`, float32 `[B, C, X, Y, Z]`, 0 in the padding."""
    x = to_unit(batch.data, spec)
    for axis, side in enumerate(x.shape[2:]):
        inside = torch.arange(side, device=x.device) < batch.sizes[:, axis, None]  # [B, side]
        shape = [len(x), 1, 1, 1, 1]
        shape[axis + 2] = side
        x = x * inside.view(shape)
    return x
