"""Views of films: some frames, all seen through one box and in one light."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tacit.core.draws import Draws
from tacit.core.errors import TacitError
from tacit.data.spec import Batch, Spec
from tacit.data.window import Window
from tacit.views.image import CentreView, ImageView


@dataclass(frozen=True)
class ClipView:
    """A random clip, float32 `[B, C, frames, size, size]`: crop, flip and colours are the same in all of its frames.

    With a `window`, the loader has cut out these very frames. Of longer samples, the clip is a stretch from a random start;
    shorter ones begin again.

    Attributes:
        frames: how many.
        look: what is done to each frame; a blur would mix neighbours, so that it has none, and nothing is erased.
        window: which frames of a sample the loader is to hand over; None for all.
    """

    frames: int
    look: ImageView
    window: Window | None = None

    def __post_init__(self) -> None:
        if self.look.blur or self.look.erase:
            raise TacitError("a clip's frames are neither blurred nor erased; leave both out")

    def __call__(self, batch: Batch, draws: Draws, spec: Spec) -> Tensor:
        free = (batch.sizes[:, 0] - self.frames).clamp(min=0)
        starts = (draws.uniform("frames") * (free + 1)).long()
        draws = self.look.ahead(draws)
        folded = _folded(_stretch(batch, starts, self.frames))
        x = self.look.cut(folded, draws).unflatten(1, (spec.channels, self.frames))  # [B, C, T, s, s]
        return self.look.finished(x.flatten(2, 3), draws, spec).unflatten(2, (self.frames, -1))


@dataclass(frozen=True)
class MiddleView:
    """The clip that evaluation sees, float32 `[B, C, frames, size, size]`: the middle of the film and of its frames."""

    frames: int
    look: CentreView

    def __call__(self, batch: Batch, draws: Draws, spec: Spec) -> Tensor:  # noqa: ARG002  (nothing is drawn)
        starts = (batch.sizes[:, 0] - self.frames).clamp(min=0) // 2
        folded = _folded(_stretch(batch, starts, self.frames))
        # One box for all frames, then each channel's own statistics, whatever the frame.
        x = self.look.cut(folded).unflatten(1, (spec.channels, self.frames)).flatten(2, 3)
        return self.look.finished(x, spec).unflatten(2, (self.frames, -1))


def _stretch(batch: Batch, starts: Tensor, frames: int) -> Batch:
    """Consecutive frames of every sample from its start; a sample that is too short begins again."""
    if batch.data.shape[2] == frames and batch.data.device.type == "cpu" and bool((batch.sizes[:, 0] == frames).all()):
        return batch
    index = (starts[:, None].long() + torch.arange(frames, device=starts.device)) % batch.sizes[:, :1].long()  # [B, frames]
    rows = torch.arange(len(batch), device=starts.device)[:, None]
    return Batch(batch.ids, batch.data.transpose(1, 2)[rows, index].transpose(1, 2), batch.sizes)


def _folded(batch: Batch) -> Batch:
    """Frames as further channels: what moves pixels then does the same to all of them."""
    return Batch(batch.ids, batch.data.flatten(1, 2), batch.sizes[:, 1:])
