"""What every format of volumes says of its files, and how voxels are laid along right, anterior and superior."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from tacit.data.payload import Unreadable

WAYS = (("L", "R"), ("P", "A"), ("I", "S"))
"""The two ends of each axis of a body: the second one is where the axis points."""


@dataclass(frozen=True)
class Volume:
    """A volume by its header.

    Attributes:
        extent: voxels along right, anterior and superior; along the axes as they lie where `orientation` is empty.
        channels: how many values a voxel has: points in time, echoes, directions.
        dtype: `uint8`, `uint16` or `float32`.
        spacing: millimetres between voxels, in the order of `extent`; None where the file does not say.
        orientation: where the axes in the file point, as `LPS`; empty where it does not say.
    """

    extent: tuple[int, int, int]
    channels: int
    dtype: str
    spacing: tuple[float, float, float] | None
    orientation: str


@dataclass(frozen=True)
class Laid:
    """How the axes of a file lie along those of a body.

    Attributes:
        axes: for right, anterior and superior, which axis of the file it is.
        flipped: for each of the three, whether the file runs the other way.
    """

    axes: tuple[int, ...] = (0, 1, 2)
    flipped: tuple[bool, ...] = (False, False, False)

    def orientation(self) -> str:
        """Where the file's own axes point, as three letters."""
        ends = {axis: WAYS[way][not self.flipped[way]] for way, axis in enumerate(self.axes)}
        return "".join(ends[axis] for axis in range(3))

    def stored(self, part: Sequence[slice] | None, extent: Sequence[int]) -> list[slice]:
        """The slices of the file's three axes that hold a part of the volume; steps are positive.

        Args:
            part: a slice of each axis of the volume, None for all.
            extent: that of the whole volume, right, anterior, superior.
        """
        asked = [slice(None)] * 3 if part is None else list(part)
        if len(asked) != 3:
            raise Unreadable(f"a part of a volume is 3 slices, not {len(asked)}")
        found = [slice(None)] * 3
        for axis, flipped, one, size in zip(self.axes, self.flipped, asked, extent, strict=True):
            chosen = range(size)[one]
            if not len(chosen) or chosen.step < 1:
                raise Unreadable(f"the part {one.start}:{one.stop}:{one.step} of an axis of {size} voxels has none")
            first, last = (size - 1 - chosen[-1], size - 1 - chosen[0]) if flipped else (chosen[0], chosen[-1])
            found[axis] = slice(first, last + 1, chosen.step)
        return found

    def turned(self, array: np.ndarray) -> np.ndarray:
        """`[a, b, c, ...]` as it lies in the file, as right, anterior, superior."""
        turned = np.moveaxis(array, self.axes, (0, 1, 2))
        return turned[tuple(slice(None, None, -1 if flipped else None) for flipped in self.flipped)]


def laid(affine: np.ndarray) -> tuple[Laid, np.ndarray] | None:
    """How axes lie, and the distance between voxels along right, anterior and superior; None where that cannot be told.

    Args:
        affine: `[3, 3]`; columns are the steps along the file's axes, in right, anterior, superior.
    """
    steps = np.linalg.norm(affine, axis=0)
    if not np.isfinite(steps).all() or steps.min() <= 0 or abs(np.linalg.det(affine / steps)) < 1e-3:
        return None
    cosines = affine / steps
    axes = max(permutations(range(3)), key=lambda axes: sum(abs(cosines[way, axis]) for way, axis in enumerate(axes)))
    flipped = tuple(bool(cosines[way, axis] < 0) for way, axis in enumerate(axes))
    return Laid(axes, flipped), steps[list(axes)]


def as_spacing(values: Sequence[float] | np.ndarray) -> tuple[float, float, float] | None:
    """Three distances, where they are that."""
    x, y, z = (float(value) for value in values)
    return (x, y, z) if all(0 < value < float("inf") for value in (x, y, z)) else None
