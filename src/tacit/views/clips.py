"""Clips of films: several evenly spread over one, to evaluate, and clips at two speeds. Numbers are counted from 0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from tacit.data.window import Clip, Some, Window


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


@dataclass(frozen=True)
class Speeds:
    """Clips at the speed of a film and at higher ones, cut out of one source clip (RSPNet).

    Attributes:
        frames: of each clip.
        faster: how much faster fast clips may be; the source clip is as long as the fastest needs.
    """

    frames: int
    faster: tuple[int, ...]

    @cached_property
    def shown(self) -> tuple[int, ...]:
        """Numbers of the source clip's frames that any clip shows, rising; the others are never read."""
        return tuple(sorted({speed * frame for speed in (1, *self.faster) for frame in range(self.frames)}))

    def window(self, stride: int) -> Window:
        """Which frames the loader is to hand over, the source clip's `stride` frames of the film apart."""
        return Some(Clip(max(self.faster) * self.frames, stride, loops=True), self.shown)

    def play(self, source: Tensor, fast: Tensor, speed: int) -> Tensor:
        """Clips from the first frame, fast ones with a stride of `speed`: `[B, C, shown, H, W]` to `[B, C, frames, H, W]`.

        Args:
            fast: bool `[B]`, which samples are to be fast.
        """
        device = source.device
        numbers = torch.arange(self.frames, device=device) * torch.where(fast, speed, 1)[:, None]  # [B, frames]
        index = torch.searchsorted(torch.tensor(self.shown, device=device), numbers)
        rows = torch.arange(len(source), device=device)[:, None]
        return source.transpose(1, 2)[rows, index].transpose(1, 2)
