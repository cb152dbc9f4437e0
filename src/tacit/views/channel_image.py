"""Views of pictures whose channels are no colours: one box for all channels, and a light of its own for each.

A view is float32 `[B, 2, C, size, size]`: values in `[0, 1]`, and where a channel is one of the sample's own (1) or pads it to
the largest of the batch (0). Every channel of every picture is brought to `[0, 1]` by its own least and greatest value, because
exposures of different channels and microscopes have no unit in common; one that varies by less than a 255th of the data's
range is not blown up to it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tacit.core.draws import Draws
from tacit.core.errors import TacitError
from tacit.data.spec import Batch, Spec
from tacit.views.channels import discard, jitter, present, shuffle
from tacit.views.image import CentreView, ImageView


@dataclass(frozen=True)
class ChannelView:
    """A random view: crop and flips, turns, which channels and in which order, the light of each, blur and solarise.

    Attributes:
        look: crop, flips, blur and solarise, which are the same for all channels.
        shift, gain: strength of the jitter, see `views.channels.jitter`.
        turns: quarter turns at random, too; with flips in both directions, all eight ways to lay a picture down.
        discard: leave a channel out of two samples in three, the same one in all views of an epoch.
        shuffle: channels in a random order, another one in each view.
    """

    look: ImageView
    shift: float = 0.0
    gain: float = 0.0
    turns: bool = False
    discard: bool = False
    shuffle: bool = False

    def __post_init__(self) -> None:
        look = self.look
        if look.jitter or look.grey or look.erase or look.normalise != "none":
            raise TacitError("channels are no colours: leave colour jitter, grey, erasing and normalising out of their views")

    def __call__(self, batch: Batch, draws: Draws, spec: Spec) -> Tensor:
        sample = Draws(draws.seed, draws.epoch, draws.samples)  # whatever the view
        draws = self.look.ahead(draws)
        x, there = _unit(batch, self.look.cut(_folded(batch), draws), spec)
        if self.turns:
            x = torch.where(draws.chance("turn", 0.5)[:, None, None, None], x.transpose(2, 3), x)
        if self.discard:
            x, there = discard(x, there, sample.uniform("channels.discard", 2))
        channels = x.shape[1]
        if self.shuffle:
            x, there = shuffle(x, there, draws.uniform("channels.shuffle", channels))
        if self.shift or self.gain:
            x = jitter(x, there, draws.uniform("channels.jitter", channels, 2), self.shift, self.gain)
        return _view(self.look.finished(x, draws, Spec(spec.kind, channels, spec.size, low=0.0, high=1.0)), there)


@dataclass(frozen=True)
class ChannelCentreView:
    """What evaluation sees: the central square, resized. Nothing is drawn."""

    size: int

    def __call__(self, batch: Batch, draws: Draws, spec: Spec) -> Tensor:  # noqa: ARG002  (nothing is drawn)
        return _view(*_unit(batch, CentreView(self.size).cut(_folded(batch)), spec))


def _folded(batch: Batch) -> Batch:
    """`[B, 1, C, H, W]` as images of C channels: what moves pixels then does the same to all of them."""
    return Batch(batch.ids, batch.data[:, 0], batch.sizes[:, 1:])


def _unit(batch: Batch, x: Tensor, spec: Spec) -> tuple[Tensor, Tensor]:
    """A part `x [B, C, h, w]` of the samples, each channel scaled by the extremes of all of it; and which channels are true."""
    data = batch.data[:, 0].float()  # [B, C, H, W]
    there = present(batch.sizes[:, 0], data.shape[1])
    rows, columns = (present(batch.sizes[:, axis], data.shape[axis + 1]) for axis in (1, 2))
    inside = (rows[:, :, None] & columns[:, None])[:, None]  # [B, 1, H, W]
    low = data.where(inside, torch.inf).amin((2, 3), keepdim=True)
    high = data.where(inside, -torch.inf).amax((2, 3), keepdim=True)
    least = (spec.high - spec.low) / 255
    unit = ((x - low) / (high - low).clamp(min=least)).clamp(0, 1)
    return unit.where(there[..., None, None], 0), there


def _view(x: Tensor, there: Tensor) -> Tensor:
    return torch.stack([x, there[..., None, None].expand_as(x).to(x)], dim=1)
