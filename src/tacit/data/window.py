"""Which part of a sample is wanted: where samples are long, nothing else is decoded, and nothing else of a store is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

Part = Callable[[Sequence[int]], tuple[np.ndarray, ...]]
"""From a sample's extent to what is wanted of it: int64 places along each of its first axes; the other axes are whole."""


class Window(Protocol):
    """A rule for which part of a sample is wanted; what is random about it comes in."""

    @property
    def drawn(self) -> int:
        """How many numbers it draws for a sample, in `[0, 1)`."""
        ...

    def __call__(self, extent: Sequence[int], drawn: Sequence[float]) -> tuple[np.ndarray, ...]:
        """See `Part`."""
        ...


@dataclass(frozen=True)
class Clip:
    """Frames at even distances, from a random start, every possible one alike.

    Where a sample is shorter than the clip, distances are narrowed to what there is, and frames repeat below that; or
    (`loops`, RSPNet) a sample of at most `frames` frames begins again.

    Attributes:
        frames: how many.
        stride: distance from one to the next, in frames of the sample.
        loops: whether samples that are too short begin again.
    """

    frames: int
    stride: int = 1
    loops: bool = False
    drawn = 1

    def __call__(self, extent: Sequence[int], drawn: Sequence[float]) -> tuple[np.ndarray, ...]:
        there, needed = extent[0], (self.frames - 1) * self.stride + 1
        if self.loops and there <= self.frames:
            return (np.arange(self.frames, dtype=np.int64) % there,)
        if there < needed:
            return (np.rint(np.linspace(0, there - 1, self.frames)).astype(np.int64),)
        free = there - needed
        start = min(int(drawn[0] * (free + 1)), free)
        return (start + self.stride * np.arange(self.frames, dtype=np.int64),)


@dataclass(frozen=True)
class Some:
    """Of another window's places along the first axis only some: what is never looked at need not be decoded.

    Attributes:
        of: the other window.
        which: the numbers of its places that are kept.
    """

    of: Window
    which: tuple[int, ...]

    @property
    def drawn(self) -> int:
        return self.of.drawn

    def __call__(self, extent: Sequence[int], drawn: Sequence[float]) -> tuple[np.ndarray, ...]:
        first, *others = self.of(extent, drawn)
        return (first[list(self.which)], *others)


@dataclass(frozen=True)
class Stretch:
    """Frames evenly from the first to the last of a stretch of `frames * stride`, from a random start (MAE-ST).

    Start and distances are fractions, which are cut off at the end; what lies beyond a sample is its last frame.

    Attributes:
        frames: how many.
        stride: length of the stretch over their number, in frames of the sample.
    """

    frames: int
    stride: int = 1
    drawn = 1

    def __call__(self, extent: Sequence[int], drawn: Sequence[float]) -> tuple[np.ndarray, ...]:
        there, long = extent[0], self.frames * self.stride
        start = drawn[0] * max(there - long, 0)
        places = start + (long - 1) * np.arange(self.frames) / max(self.frames - 1, 1)
        return (np.minimum(places, there - 1).astype(np.int64),)


@dataclass(frozen=True)
class Middle:
    """At most so many frames at even distances around the middle of a sample; fewer where it is shorter. Nothing is drawn.

    Attributes:
        frames: how many at most.
        stride: distance from one to the next, in frames of the sample.
    """

    frames: int
    stride: int = 1
    drawn = 0

    def __call__(self, extent: Sequence[int], drawn: Sequence[float]) -> tuple[np.ndarray, ...]:  # noqa: ARG002
        count = min(self.frames, (extent[0] - 1) // self.stride + 1)
        start = (extent[0] - (count - 1) * self.stride - 1) // 2
        return (start + self.stride * np.arange(count, dtype=np.int64),)


@dataclass(frozen=True)
class Spread:
    """At most so many frames, evenly spread over the sample: enough to know what it looks like. Nothing is drawn."""

    frames: int
    drawn = 0

    def __call__(self, extent: Sequence[int], drawn: Sequence[float]) -> tuple[np.ndarray, ...]:  # noqa: ARG002
        return (np.unique(np.rint(np.linspace(0, extent[0] - 1, min(extent[0], self.frames))).astype(np.int64)),)


@dataclass(frozen=True)
class Box:
    """Voxels that lie together, from a random corner; an axis with no more of them comes whole.

    Attributes:
        extent: how many along each axis.
    """

    extent: tuple[int, int, int]
    drawn = 3

    def __call__(self, extent: Sequence[int], drawn: Sequence[float]) -> tuple[np.ndarray, ...]:
        free = [max(0, there - side) for there, side in zip(extent, self.extent, strict=True)]
        starts = [min(int(chance * (room + 1)), room) for chance, room in zip(drawn, free, strict=True)]
        return tuple(
            start + np.arange(min(side, there), dtype=np.int64)
            for start, side, there in zip(starts, self.extent, extent, strict=True)
        )


@dataclass(frozen=True)
class Lattice:
    """At most so many places along each axis, evenly spread: enough to know what a volume looks like. Nothing is drawn."""

    most: int
    drawn = 0

    def __call__(self, extent: Sequence[int], drawn: Sequence[float]) -> tuple[np.ndarray, ...]:
        return tuple(Spread(self.most)([there], drawn)[0] for there in extent)


def cut(sample: np.ndarray, places: Sequence[np.ndarray], first: int = 0) -> np.ndarray:
    """These places of a sample along its axes from `first` on."""
    for axis, wanted in enumerate(places, first):
        sample = sample.take(wanted, axis=axis)
    return sample
