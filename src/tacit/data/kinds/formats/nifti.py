"""NIfTI volumes (`.nii`, `.nii.gz`): any part of them, along the axes of the body."""

from __future__ import annotations

import gzip
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, cast

import numpy as np

from tacit.data.kinds.formats.content import (
    DEFAULT_LIMITS,
    PACKED,
    Content,
    as_kept,
    guarded,
    kept,
    length,
    missing,
    opened,
    pieces,
    refuse_large,
    refuse_missing,
)
from tacit.data.kinds.formats.volume import Laid, Volume, as_spacing, laid
from tacit.data.payload import Limits, Unreadable

EXTENSIONS = frozenset({".nii", ".nii.gz"})
MILLIMETRES = {"meter": 1000.0, "mm": 1.0, "micron": 0.001}
HEADS = {348: b"n+1\0", 540: b"n+2\0\r\n\x1a\n"}
"""How long the header of each version is, and what marks it; the first four bytes are that length."""

MOST_BEHIND = 1 << 20
"""So many bytes behind the voxels are read for the sake of the checksum that follows."""


def header(content: Content, limits: Limits = DEFAULT_LIMITS) -> Volume:
    """What the volume is, by its header."""
    return seen(content, limits)[0]


def read(content: Content, part: Sequence[slice] | None = None, limits: Limits = DEFAULT_LIMITS) -> np.ndarray:
    """`[right, anterior, superior, C]` in the header's dtype, the file's scaling applied; nothing else of it is kept in memory.

    Args:
        content: the file.
        part: a slice of each axis, in the order of the header's extent; all, if None.
        limits: bytes that the part may take.
    """
    return seen(content, limits)[1](part)


@guarded
def seen(content: Content, limits: Limits) -> tuple[Volume, Callable[[Sequence[slice] | None], np.ndarray]]:
    """What the volume is, and what reads a part of it without looking at its header again."""
    with _unpacked(content) as (file, most):
        found = _opened(file, most)
    return found.volume, guarded(partial(_read, content, limits, found))


@dataclass(frozen=True)
class _Opened:
    """Where the values lie in the unpacked file: shape, dtype, first byte, slope and intercept."""

    volume: Volume
    laid: Laid
    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int
    scaling: tuple[float, float]


def _read(content: Content, limits: Limits, found: _Opened, part: Sequence[slice] | None) -> np.ndarray:
    from nibabel.volumeutils import apply_read_scaling

    slices = found.laid.stored(part, found.volume.extent)
    sizes = [len(range(n)[s]) for n, s in zip(found.shape, slices, strict=False)]
    # Scaled values come as float64.
    refuse_large((*sizes, found.volume.channels), 8 if found.scaling != (1.0, 0.0) else found.dtype.itemsize, limits)
    # The first axis lies closest together.
    (wide, high, deep), across = found.shape[:3], range(found.shape[1])[slices[1]]
    planes = [volume * deep + at for volume in range(found.volume.channels) for at in range(deep)[slices[2]]]
    places = [found.offset + (plane * high + across[0]) * wide * found.dtype.itemsize for plane in planes]
    shape = across[-1] + 1 - across[0], wide
    with _unpacked(content) as (file, _):
        array = pieces(file, places, shape, found.dtype, (slice(None, None, across.step), slices[0]), limits)
        if part is None:
            _read_to_the_end(file)
    array = array.reshape(found.volume.channels, *sizes[::-1]).transpose(3, 2, 1, 0)
    return as_kept(found.laid.turned(apply_read_scaling(array, *map(np.float64, found.scaling))))


@contextmanager
def _unpacked(content: Content) -> Iterator[tuple[BinaryIO, int]]:
    """The unpacked file, and how many bytes it may have at most."""
    with opened(content) as file:
        size = length(file)
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        if not packed:
            yield file, size
            return
        with gzip.GzipFile(fileobj=file) as unpacked:
            yield cast(BinaryIO, unpacked), size * PACKED


def _read_to_the_end(file: BinaryIO) -> None:
    """What is packed is known to be sound only when its checksum has been reached, which stands behind the last byte."""
    for _ in range(MOST_BEHIND >> 16):
        if not file.read(1 << 16):
            return


def _opened(file: BinaryIO, most: int) -> _Opened:
    head = _head(file)
    shape = tuple(int(n) for n in head.get_data_shape())
    dtype = head.get_data_dtype()
    if not 2 <= len(shape) <= 7 or min(shape) < 1:
        raise Unreadable(f"a NIfTI of shape {shape} is no volume")
    if len(shape) == 2:
        shape = (*shape, 1)
    slope, intercept = head.get_slope_inter()
    scaling = (1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept))
    type_kept = "float32" if scaling != (1.0, 0.0) else kept(dtype)
    offset = int(head.get_data_offset())
    refuse_missing(max(offset, 0) + math.prod(shape) * dtype.itemsize, most)
    unit = MILLIMETRES.get(head.get_xyzt_units()[0], 1.0)
    placed = laid(head.get_best_affine()[:3, :3]) if head["sform_code"] > 0 or head["qform_code"] > 0 else None
    if placed is None:
        lies, spacing = Laid(), as_spacing(np.abs(head["pixdim"][1:4]) * unit)
    else:
        lies, spacing = placed[0], as_spacing(placed[1] * unit)
    extent = (shape[lies.axes[0]], shape[lies.axes[1]], shape[lies.axes[2]])
    volume = Volume(extent, math.prod(shape[3:]), type_kept, spacing, lies.orientation() if placed else "")
    return _Opened(volume, lies, shape, dtype, offset, scaling)


def _head(file: BinaryIO) -> Any:
    """The header alone: what may lie behind it (extensions of any length) is nothing that anybody asked for."""
    try:
        from nibabel.nifti1 import Nifti1Header
        from nibabel.nifti2 import Nifti2Header
    except ImportError:
        raise missing("a NIfTI volume", "nibabel", "medical") from None
    block = file.read(max(HEADS))
    for (size, mark), version in zip(HEADS.items(), (Nifti1Header, Nifti2Header), strict=True):
        lengths = {size.to_bytes(4, order) for order in ("little", "big")}
        at = 344 if version is Nifti1Header else 4
        if block[:4] in lengths and block[at : at + len(mark)] == mark:
            if len(block) < size:
                raise Unreadable("truncated: the header of the NIfTI is cut off")
            return version(block[:size], check=False)
    raise Unreadable("not a NIfTI in one file")
