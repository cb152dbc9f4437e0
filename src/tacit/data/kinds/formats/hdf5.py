"""Arrays in HDF5 files: any part of them. What a file says lies in another file is refused."""

from __future__ import annotations

import math
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from typing import Any

import numpy as np

from tacit.data.kinds.formats.content import (
    DEFAULT_LIMITS,
    PACKED,
    Content,
    as_kept,
    guarded,
    kept,
    length,
    opened,
    refuse_large,
    refuse_missing,
)
from tacit.data.kinds.formats.volume import Laid, Volume, as_spacing
from tacit.data.payload import Limits, Unreadable

EXTENSIONS = frozenset({".h5", ".hdf5", ".hdf"})
SIGNATURE = b"\x89HDF\r\n\x1a\n"
MOST_OBJECTS = 10_000
"""So many groups and arrays of a file are looked at."""

MOST_PIECES = 1 << 20
"""So many pieces of an array are read at once."""


@guarded
def header(content: Content, name: str = "", limits: Limits = DEFAULT_LIMITS) -> Volume:
    """What the volume is: axes as they lie, `element_size_um` (micrometres between voxels) obeyed where the array has it.

    Args:
        content: the file.
        name: of the array in it; empty if there is only one with 3 axes, or 4 of which the last are channels.
        limits: bytes that a piece of a packed array may take.
    """
    with array(content, name, limits, (3, 4)) as found:
        return _volume(found)


@guarded
def read(content: Content, part: Sequence[slice] | None = None, name: str = "", limits: Limits = DEFAULT_LIMITS) -> np.ndarray:
    """`[*extent, C]` in the header's dtype; nothing outside of `part` (a slice of each axis) is read, but for whole pieces."""
    with array(content, name, limits, (3, 4)) as found:
        volume = _volume(found)
        slices = Laid().stored(part, volume.extent)
        sizes = [len(range(n)[s]) for n, s in zip(volume.extent, slices, strict=True)]
        refuse_large((*sizes, volume.channels), found.dtype.itemsize, limits)
        return as_kept(cut(found, slices, limits).reshape(*sizes, volume.channels))


@guarded
def whole(content: Content, wanted: Collection[str], limits: Limits = DEFAULT_LIMITS) -> dict[str, np.ndarray]:
    """The arrays of these names (in small letters) at the top of the file, all of each, as far as there are any."""
    import h5py

    with opened(content) as file, h5py.File(file, "r") as archive:
        there = [name for path in names(archive) if (name := path.removeprefix("/")).lower() in wanted]
    found = {}
    for name in there:
        with array(content, name, limits, range(1, 6)) as one:
            refuse_large(one.shape, one.dtype.itemsize, limits)
            found[name] = cut(one, [slice(None)] * one.ndim, limits)
    return found


@contextmanager
def array(content: Content, name: str, limits: Limits, axes: Sequence[int]) -> Iterator[Any]:
    """The array of that name, or the only one with so many axes; numbers that lie in this very file."""
    import h5py

    with opened(content) as file:
        size = length(file)
        with h5py.File(file, "r") as archive:
            found = _named(archive, name) if name else _only(archive, axes)
            _refuse_foreign(found)
            if found.ndim not in axes or min(found.shape) < 1:
                raise Unreadable(
                    f"the array {found.name} has shape {found.shape}; {' or '.join(map(str, axes))} axes were expected"
                )
            kept(found.dtype)
            refuse_missing(math.prod(found.shape) * found.dtype.itemsize, size, PACKED)
            if found.chunks is not None:
                refuse_large(found.chunks, found.dtype.itemsize, limits)
            yield found


def cut(found: Any, part: Sequence[slice], limits: Limits) -> np.ndarray:
    """These values along the first axes, in the array's own dtype. Packed pieces that unpack to too much are `Unreadable`."""
    if found.chunks is not None:
        chosen = [range(there)[one] for there, one in zip(found.shape, [*part, *[slice(None)] * found.ndim], strict=False)]
        _refuse_bombs(found, chosen, limits)
    return found[tuple(part)]


def names(archive: Any) -> Iterator[str]:
    """All arrays that lie in this very file; links to elsewhere are not followed."""
    import h5py

    left, seen = [archive], 0
    while left:
        group = left.pop()
        for key in group:
            seen += 1
            if seen > MOST_OBJECTS:
                raise Unreadable(f"an HDF5 file with more than {MOST_OBJECTS:,} objects")
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                continue
            found = group[key]
            if isinstance(found, h5py.Dataset):
                yield str(found.name)
            elif isinstance(found, h5py.Group):
                left.append(found)


def _only(archive: Any, axes: Sequence[int]) -> Any:
    there = {name: archive[name] for name in names(archive)}
    fitting = [found for found in there.values() if found.ndim in axes and found.dtype.kind in "biuf"]
    if len(fitting) != 1:
        listed = ", ".join(f"{name} {found.shape}" for name, found in list(there.items())[:5]) or "nothing"
        raise Unreadable(f"an HDF5 file with one array of {' or '.join(map(str, axes))} axes was expected; it has {listed}")
    return fitting[0]


def _named(archive: Any, name: str) -> Any:
    """Step by step, so that no link leads out of the file."""
    import h5py

    found: Any = archive
    for step in filter(None, name.split("/")):
        link = found.get(step, getlink=True) if isinstance(found, h5py.Group) else None
        if link is None:
            raise Unreadable(f"no array '{name}' in the HDF5 file")
        if not isinstance(link, h5py.HardLink):
            raise Unreadable(f"'{name}' in the HDF5 file is a link to another place, which is not followed")
        found = found[step]
    if not isinstance(found, h5py.Dataset):
        raise Unreadable(f"'{name}' in the HDF5 file is no array")
    return found


def _refuse_foreign(found: Any) -> None:
    if found.external or found.is_virtual:
        raise Unreadable(f"the values of {found.name} lie in other files, which are not read")


def _refuse_bombs(found: Any, chosen: Sequence[range], limits: Limits) -> None:
    """HDF5 unpacks a piece to whatever it becomes: look first at those that could become more than the limit."""
    from h5py import h5z  # pyright: ignore[reportAttributeAccessIssue]

    plan = found.id.get_create_plist()
    filters = [plan.get_filter(number)[0] for number in range(plan.get_nfilters())]
    if sum(code not in (h5z.FILTER_SHUFFLE, h5z.FILTER_FLETCHER32) for code in filters) > 1:
        raise Unreadable(f"the values of {found.name} are packed more than once")
    axes = [range(one[0] // side * side, one[-1] + 1, side) for one, side in zip(chosen, found.chunks, strict=True)]
    if math.prod(map(len, axes)) > MOST_PIECES:
        raise Unreadable(f"the values of {found.name} lie in more than {MOST_PIECES:,} pieces; take a part")
    room = math.prod(found.chunks) * found.dtype.itemsize + 4  # a checksum
    for at in product(*axes) if h5z.FILTER_DEFLATE in filters else ():
        piece = found.id.get_chunk_info_by_coord(at)
        skipped = piece.filter_mask >> filters.index(h5z.FILTER_DEFLATE) & 1
        if piece.size * PACKED <= limits.file_bytes or skipped:
            continue
        if len(zlib.decompressobj().decompress(found.id.read_direct_chunk(at)[1], room + 1)) > room:
            raise Unreadable(f"a piece of {found.name} unpacks to more than the {room:,} bytes that it says")


def _volume(found: Any) -> Volume:
    depth, height, width, *rest = found.shape
    sizes = found.attrs.get("element_size_um")
    known = isinstance(sizes, np.ndarray) and sizes.shape == (3,) and sizes.dtype.kind in "iuf"
    return Volume((depth, height, width), math.prod(rest), kept(found.dtype), as_spacing(sizes / 1000) if known else None, "")
