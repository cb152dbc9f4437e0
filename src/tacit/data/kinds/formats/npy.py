"""NumPy's files: their headers are checked against their sizes before memory is taken, and Python objects are refused."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from tacit.core import archives
from tacit.data.kinds.formats.content import pieces, refuse_large
from tacit.data.payload import Limits, Unreadable

SIGNATURE = b"\x93NUMPY"
ZIP = b"PK\3\4"

_ONE_AT_A_TIME = threading.Lock()
"""NumPy has Python parse a header, and CPython before 3.11.8 and 3.12.2 counts the depth of all threads' parsers together:
two at once, and a sound file is a `SystemError` (gh-106905)."""


@dataclass(frozen=True)
class Header:
    """What a `.npy` says of its array, and the byte at which the values begin."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype
    start: int


def header(file: BinaryIO, size: int) -> Header:
    """The header of a file of `size` bytes; `Unreadable` where that is not what its array takes."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    with _ONE_AT_A_TIME:
        shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise Unreadable("Python objects, which are never loaded; save plain numbers")
    start = file.tell()
    if min(shape, default=0) < 0 or start + math.prod(shape) * dtype.itemsize != size:
        raise Unreadable(f"truncated: an array of shape {shape} is claimed by {size:,} bytes")
    return Header(shape, fortran, dtype, start)


def rows(file: BinaryIO, found: Header, part: slice, limits: Limits) -> np.ndarray:
    """Those rows of the array in a seekable file; only what lies between the first and the last of them is read."""
    chosen = range(found.shape[0])[part]
    if found.fortran or len(chosen) == 0:
        refuse_large(found.shape, found.dtype.itemsize, limits)
        file.seek(found.start)
        array = np.frombuffer(file.read(math.prod(found.shape) * found.dtype.itemsize), found.dtype)
        return array.reshape(found.shape, order="F" if found.fortran else "C")[part]
    first, last = min(chosen[0], chosen[-1]), max(chosen[0], chosen[-1])
    shape = last - first + 1, *found.shape[1:]
    refuse_large(shape, found.dtype.itemsize, limits)
    row = math.prod(found.shape[1:]) * found.dtype.itemsize
    file.seek(found.start + first * row)
    array = np.frombuffer(bytearray(file.read(shape[0] * row)), found.dtype).reshape(shape)
    return array[:: chosen.step]


def box(file: BinaryIO, found: Header, part: Sequence[slice], limits: Limits) -> np.ndarray:
    """This part of an array of three axes or more in a seekable file; steps are positive, axes not named are whole.

    Of the first axis only what is wanted is read, of the second what lies between the first and the last that are.
    """
    if found.fortran:
        return rows(file, found, part[0], limits)[(slice(None), *part[1:])]
    across, line = range(found.shape[1])[part[1]], math.prod(found.shape[2:]) * found.dtype.itemsize
    places = [found.start + (at * found.shape[1] + across[0]) * line for at in range(found.shape[0])[part[0]]]
    shape = across[-1] + 1 - across[0], *found.shape[2:]
    return pieces(file, places, shape, found.dtype, (slice(None, None, across.step), *part[2:]), limits)


def only(file: BinaryIO, size: int, limits: Limits) -> np.ndarray:
    """The array of a `.npy`, or the only one of a `.npz`."""
    if file.read(len(ZIP)) == ZIP:
        arrays = archived(file, limits)
        if len(arrays) != 1:
            raise Unreadable(f"one array was expected in the archive; it has {len(arrays)}")
        return next(iter(arrays.values()))
    file.seek(0)
    return rows(file, header(file, size), slice(None), limits)


def archived(file: BinaryIO, limits: Limits) -> dict[str, np.ndarray]:
    """All arrays of a `.npz`, by name."""
    found = archives.archive(file)
    members = [info for info in found.infolist() if info.filename.endswith(".npy")]
    refuse_large((sum(info.file_size for info in members),), 1, limits)
    arrays = {}
    for info in members:
        with found.open(info) as member:
            head = header(member, info.file_size)  # pyright: ignore[reportArgumentType]
            values = member.read(info.file_size - head.start)
        if len(values) != info.file_size - head.start:
            raise Unreadable(f"truncated: '{info.filename}' is shorter than it says")
        array = np.frombuffer(values, head.dtype).reshape(head.shape, order="F" if head.fortran else "C")
        arrays[info.filename.removesuffix(".npy")] = array
    return arrays
