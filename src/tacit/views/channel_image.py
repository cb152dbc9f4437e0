"""Views of pictures whose channels are no colours: one box for all channels, and a light of its own for each.

A view is float32 `[B, 2, C, size, size]`: values in `[0, 1]`, and where a channel is one of the sample's own (1) or pads it to
the largest of the batch (0). A channel that is zero everywhere is one that the sample does not have, too.

Every channel of every picture is brought to `[0, 1]` by its own least and greatest value, because exposures of different
channels and microscopes have no unit in common; one that varies by less than a 255th of the data's range is not blown up to it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tacit.core.draws import Draws
from tacit.core.errors import TacitError
from tacit.data.spec import Batch, Spec
from tacit.views.channels import discard, jitter, only, present, shuffle
from tacit.views.image import CentreView, ImageView, changed


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
        folded = _folded(batch)
        x, there = _unit(folded, batch.sizes[:, 0], self.look.cut(folded, draws), spec)
        if self.turns:
            x = changed(x, draws.chance("turn", 0.5), lambda x: x.transpose(2, 3))
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
        folded = _folded(batch)
        return _view(*_unit(folded, batch.sizes[:, 0], CentreView(self.size).cut(folded), spec))


def _folded(batch: Batch) -> Batch:
    """`[B, 1, C, H, W]` as images of C channels, float32: what moves pixels then does the same to all of them."""
    data = batch.data[:, 0]
    if data.device.type == "cpu":  # where NumPy takes a fifth of the time for 16 bits
        data = torch.from_numpy(data.numpy().astype(np.float32, order="C"))
    return Batch(batch.ids, data.float(), batch.sizes[:, 1:])


def _unit(folded: Batch, counts: Tensor, x: Tensor, spec: Spec) -> tuple[Tensor, Tensor]:
    """A part `x [B, C, h, w]` of the samples, each channel scaled by the extremes of all of it; and which channels are true."""
    there = present(counts, x.shape[1])
    low = high = folded.data
    # On a processor it is known at once whether anything is padded: masks take longer than all the rest.
    if low.device.type != "cpu" or bool((folded.sizes != folded.sizes.new_tensor(low.shape[2:])).any()):
        rows, columns = (present(folded.sizes[:, axis], low.shape[axis + 2]) for axis in (0, 1))
        inside = (rows[:, :, None] & columns[:, None])[:, None]  # [B, 1, H, W]
        low, high = low.where(inside, torch.inf), high.where(inside, -torch.inf)
    low, high = low.amin((2, 3), keepdim=True), high.amax((2, 3), keepdim=True)
    # Decoding leaves zeros in the place of a channel that is missing. A picture of nothing but zeros keeps its channels.
    own = there & ((low != 0) | (high != 0))[..., 0, 0]
    there = own.where(own.any(dim=1, keepdim=True), there)
    least = (spec.high - spec.low) / 255
    unit = (x - low).div_((high - low).clamp(min=least)).clamp_(0, 1)
    return only(unit, there), there


def _view(x: Tensor, there: Tensor) -> Tensor:
    return torch.stack([x, only(torch.ones_like(x), there)], dim=1)
