"""DICOM series: single slices, sorted by where they lie in the body, as one volume.

What is not one volume is refused: slices of several series, sizes or directions, two at one place, one missing between others.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tacit.core import files
from tacit.data.kinds.formats.content import (
    DEFAULT_LIMITS,
    Content,
    as_kept,
    guarded,
    kept,
    length,
    missing,
    opened,
    refuse_large,
)
from tacit.data.kinds.formats.volume import Laid, Volume, as_spacing, laid
from tacit.data.payload import Limits, Unreadable

EXTENSIONS = frozenset({".dcm", ".dicom", ".ima"})
MARK = b"DICM"
DEFLATED = b"1.2.840.10008.1.2.1.99"
"""The transfer syntax that packs the whole file: pydicom would unpack it to whatever it becomes."""

# What is wrong with a file is said once, as the reason why it is unreadable.
logging.getLogger("pydicom").setLevel(logging.CRITICAL)
warnings.filterwarnings("ignore", category=UserWarning, module=r"pydicom\.")

UNEVEN = 0.1
"""Distances between slices may differ by this share of what is typical."""

SAME = ("SeriesInstanceUID", "Rows", "Columns", "ImageOrientationPatient", "PixelSpacing", "PhotometricInterpretation")
"""What all slices of a volume have in common."""


def is_dicom(head: bytes) -> bool:
    """Whether a file that begins like this is one."""
    return head[128:132] == MARK


@guarded
def in_folder(folder: Path) -> list[Path]:
    """The DICOM files that lie in a folder, whatever their names."""
    found = []
    for path in sorted(folder.iterdir()):
        with contextlib.suppress(OSError), files.opened(path) as file:
            if is_dicom(file.read(132)):
                found.append(path)
    return found


@dataclass(frozen=True, eq=False)
class Slice:
    """One file: its content, its header without pixels, and millimetres along the direction of the series."""

    content: Content
    tags: Any
    at: float


@dataclass(frozen=True, eq=False)
class Series:
    """Slices in order. Axes as they lie: columns, rows, slices; `size` are rows and columns."""

    volume: Volume
    laid: Laid
    slices: list[Slice]
    size: tuple[int, int]


@guarded
def opened_series(contents: Sequence[Content], limits: Limits = DEFAULT_LIMITS) -> Series:
    """The series of these files, in any order, by all their headers; no pixel is read."""
    return _sorted(contents, limits)


@guarded
def header(contents: Sequence[Content], limits: Limits = DEFAULT_LIMITS) -> Volume:
    """What the volume is, by the headers of all its slices."""
    return _sorted(contents, limits).volume


@guarded
def read(
    series: Series | Sequence[Content], part: Sequence[slice] | None = None, limits: Limits = DEFAULT_LIMITS
) -> np.ndarray:
    """`[right, anterior, superior, 1]` in the header's dtype, rescaled (CT: to Hounsfield units); only its slices are decoded.

    Args:
        series: the files of the slices, or what `opened_series` said of them.
        part: a slice of each axis, in the order of the header's extent; all, if None.
        limits: bytes that the part may take.
    """
    found = series if isinstance(series, Series) else _sorted(series, limits)
    columns, rows, chosen = found.laid.stored(part, found.volume.extent)
    places = range(len(found.slices))[chosen]
    height, width = (len(range(n)[s]) for n, s in zip(found.size, (rows, columns), strict=True))
    refuse_large((width, height, len(places)), 4, limits)
    array = np.empty((width, height, len(places)), dtype=found.volume.dtype)
    for number, place in enumerate(places):
        pixels = _pixels(found.slices[place], found.size, found.volume.dtype)
        array[:, :, number] = pixels[rows, columns].T
    return as_kept(found.laid.turned(array))[..., None]


def _sorted(contents: Sequence[Content], limits: Limits) -> Series:
    if not contents:
        raise Unreadable("a series without a slice")
    tags = [_tags(content) for content in contents]
    first = tags[0]
    _refuse_mixed(tags)
    size = int(first.Rows), int(first.Columns)
    if min(size) < 1 or size[0] * size[1] > limits.pixels:
        raise Unreadable(f"slices of {size[0]}x{size[1]} pixels; from 1 to the limit of {limits.pixels:,} were expected")
    directions = _directions(tags)
    if directions is None:
        ats = [float(t.get("InstanceNumber") or 0) for t in tags]
    else:
        ats = [float(np.dot(directions[2], np.array(t.ImagePositionPatient, dtype=np.float64))) for t in tags]
    slices = sorted((Slice(*one) for one in zip(contents, tags, ats, strict=True)), key=lambda s: s.at)
    step = _step([s.at for s in slices])
    if step is None or directions is None:
        step = float(first.get("SpacingBetweenSlices") or first.get("SliceThickness") or "nan")
    between_rows, between_columns = first.get("PixelSpacing") or (float("nan"), float("nan"))
    steps = np.array([between_columns, between_rows, step], dtype=np.float64)
    # DICOM points to the left and behind, where we point to the right and before.
    found = None if directions is None else laid((directions * steps[:, None]).T * [[-1], [-1], [1]])
    lies, spacing = found or (Laid(), steps)
    shape = size[1], size[0], len(slices)
    extent = shape[lies.axes[0]], shape[lies.axes[1]], shape[lies.axes[2]]
    volume = Volume(extent, 1, _dtype(tags), as_spacing(spacing), lies.orientation() if found else "")
    return Series(volume, lies, slices, size)


def _directions(tags: list[Any]) -> np.ndarray | None:
    """`[3, 3]` where columns, rows and slices follow one another, in left, posterior, superior; None where no tag says."""
    if not tags[0].get("ImageOrientationPatient") or not all(t.get("ImagePositionPatient") for t in tags):
        return None
    along_row, along_column = np.array(tags[0].ImageOrientationPatient, dtype=np.float64).reshape(2, 3)
    return np.stack([along_row, along_column, np.cross(along_row, along_column)])


def _tags(content: Content, pixels: bool = False) -> Any:
    """The header of a file, and its pixels only where they are asked for."""
    try:
        import pydicom
    except ImportError:
        raise missing("a DICOM series", "pydicom", "medical") from None
    with opened(content) as file:
        length(file)
        if not is_dicom(file.read(132)):
            raise Unreadable("not a DICOM file")
        if DEFLATED in file.read():
            raise Unreadable("a DICOM file that is deflated as a whole, which is not read: unpack it first")
        file.seek(0)
        tags = pydicom.dcmread(file, stop_before_pixels=not pixels)
    if "Rows" not in tags or "Columns" not in tags:
        raise Unreadable("a DICOM file without pixels")
    return tags


def _refuse_mixed(tags: list[Any]) -> None:
    for one in tags:
        if int(one.get("NumberOfFrames") or 1) != 1 or int(one.get("SamplesPerPixel") or 1) != 1:
            raise Unreadable("a DICOM file with several frames, or colours: single grey slices were expected")
        for name in SAME:
            if not _alike(one.get(name), tags[0].get(name)):
                raise Unreadable(f"a mixed series: {name} is {_short(tags[0].get(name))} and {_short(one.get(name))}")


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, (str, int, type(None))) or isinstance(other, (str, int, type(None))):
        return one == other
    return len(one) == len(other) and np.allclose(np.array(one, dtype=float), np.array(other, dtype=float), atol=1e-4)


def _short(value: Any) -> str:
    return "nothing" if value is None else " ".join(str(value).split())[-40:]


def _step(ats: list[float]) -> float | None:
    """Millimetres between slices; None for a single one. Raises `Unreadable` where they are not evenly spaced."""
    if len(ats) < 2:
        return None
    gaps = np.diff(ats)
    typical = float(np.median(gaps))
    if gaps.min() <= 1e-3:
        raise Unreadable("a mixed series: two slices lie at one place (several points in time, or a copy)")
    if np.abs(gaps - typical).max() > UNEVEN * typical:
        raise Unreadable(f"a series with gaps: slices are {gaps.min():.2f} to {gaps.max():.2f} apart")
    return typical


def _rescale(tags: Any) -> tuple[float, float]:
    slope, intercept = tags.get("RescaleSlope"), tags.get("RescaleIntercept")
    return (1.0 if slope is None else float(slope)), (0.0 if intercept is None else float(intercept))


def _dtype(tags: list[Any]) -> str:
    if any(_rescale(t) != (1.0, 0.0) for t in tags) or any(int(t.get("PixelRepresentation") or 0) for t in tags):
        return "float32"
    bits = {int(t.get("BitsAllocated") or 16) for t in tags}
    return "uint8" if bits <= {1, 8} else kept(np.dtype("uint16")) if bits <= {1, 8, 16} else "float32"


def _pixels(one: Slice, size: tuple[int, int], dtype: str) -> np.ndarray:
    """`[rows, columns]`, rescaled."""
    pixels = _tags(one.content, pixels=True).pixel_array
    if pixels.shape != size:
        raise Unreadable(f"a slice of {pixels.shape} that says it has {size}")
    slope, intercept = _rescale(one.tags)
    if (slope, intercept) == (1.0, 0.0):
        return pixels.astype(dtype)
    return (pixels * np.float64(slope) + intercept).astype(dtype)
