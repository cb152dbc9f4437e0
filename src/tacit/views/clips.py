"""Clips of films: several evenly spread over one, to evaluate, and clips at two speeds. Numbers are counted from 0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tacit.data.window import Clip


@dataclass(frozen=True)
class EvenClip:
    """One of several clips that are evenly spread over a film (RSPNet); a single one lies in the middle. Nothing is drawn.

    What is too short for a clip begins again, or is sampled evenly, as `Clip` has it: then all of them show the same.

    Attributes:
        frames: of a clip.
        stride: distance from one to the next, in frames of the film.
        clips: how many there are.
        place: which of them this is, from 0.
    """

    frames: int
    stride: int
    clips: int
    place: int
    drawn = 0

    def __call__(self, extent: Sequence[int], drawn: Sequence[float]) -> tuple[np.ndarray, ...]:  # noqa: ARG002
        last = last_start(extent[0], self.frames, self.stride)
        # Halves go to the even one.
        start = last // 2 if self.clips == 1 else round(self.place * last / (self.clips - 1))
        # In the middle of those draws that begin there.
        return Clip(self.frames, self.stride, loops=True)(extent, [(start + 0.5) / (last + 1)])


def last_start(there: int, frames: int, stride: int) -> int:
    """The last frame of a film of `there` at which a clip can begin; 0 where the film is shorter."""
    return max(there - (frames - 1) * stride - 1, 0)


def even_clips(there: int, frames: int, stride: int, most: int) -> list[EvenClip]:
    """The clips that stand for a film of `there` frames: at most so many, and no more than there are different ones."""
    clips = min(most, last_start(there, frames, stride) + 1)
    return [EvenClip(frames, stride, clips, place) for place in range(clips)]


def fast_ones(permutation: Tensor, share: float) -> Tensor:
    """Bool `[B]`: the first `int(share * B)` samples of the permutation are slow, the others fast."""
    fast = torch.ones(len(permutation), dtype=torch.bool, device=permutation.device)
    fast[permutation[: int(share * len(permutation))]] = False
    return fast


def at_speed(clips: Tensor, fast: Tensor, speed: int) -> Tensor:
    """Play clips `[B, C, T, H, W]` from their first frame, fast ones with a stride of `speed`: `[B, C, T // speed, H, W]`."""
    stride = torch.where(fast, speed, 1)
    index = torch.arange(clips.shape[2] // speed, device=clips.device) * stride[:, None]  # [B, T // speed]
    rows = torch.arange(len(clips), device=clips.device)[:, None]
    return clips.transpose(1, 2)[rows, index].transpose(1, 2)
