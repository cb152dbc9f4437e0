"""Clouds of points: PLY, OFF, OBJ, NPY, NPZ, HDF5 and Parquet, each as `[N, 3 + F]` with the names of its features.

What a format holds beside points (faces, textures) is passed over.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import BinaryIO

import numpy as np

from tacit.data.kinds.formats import hdf5, npy
from tacit.data.kinds.formats.content import DEFAULT_LIMITS, Content, guarded, kept, length, missing, opened, refuse_large
from tacit.data.payload import Limits, Unreadable

EXTENSIONS = frozenset({".ply", ".off", ".obj", ".npy", ".npz", ".h5", ".hdf5", ".parquet"})
POSITIONS = ("points", "xyz", "pos", "position", "positions", "coords", "coord", "vertices", "voxel", "data")
"""What the array of positions may be called in a file with several."""

AXES = ("x", "y", "z")
COLOURS = ("red", "green", "blue")
HEAD_BYTES = 1 << 16
"""No header of a PLY is longer."""

MOST_FEATURES = 256
"""An array with more columns is something else."""

OFF = re.compile(rb"\s*(ST)?(C)?(N)?OFF\b|\s*OFF(?=\d)")


@dataclass(frozen=True)
class Cloud:
    """A cloud by its header.

    Attributes:
        points: how many.
        features: names of what each point has beside x, y and z.
    """

    points: int
    features: tuple[str, ...]


@dataclass(frozen=True)
class _Opened:
    """The header; and how to read some points, a slice of them with a positive step, as columns or `[N, 3 + F]`."""

    cloud: Cloud
    rows: Callable[[slice], np.ndarray | Sequence[np.ndarray]]


@guarded
def header(content: Content, name: str = "", limits: Limits = DEFAULT_LIMITS) -> Cloud:
    """What the cloud is. Formats whose headers do not say it (OBJ) are read whole.

    Args:
        content: the file.
        name: of the file; OBJ is known by nothing else.
        limits: bytes that what is read may take.
    """
    with opened(content) as file:
        return _opened(file, name, limits).cloud


@guarded
def read(content: Content, part: slice | None = None, name: str = "", limits: Limits = DEFAULT_LIMITS) -> np.ndarray:
    """`[N, 3 + F]` float32: x, y, z and the features in the header's order, for the points in `part` (all, if None)."""
    with opened(content) as file:
        found = _opened(file, name, limits)
        chosen = range(found.cloud.points)[part or slice(None)]
        if not len(chosen) or chosen.step < 1:
            raise Unreadable(f"the part {part} of {found.cloud.points} points has none")
        # Numbers come with up to 8 bytes before they are 4.
        refuse_large((len(chosen), 3 + len(found.cloud.features)), 8, limits)
        rows = found.rows(slice(chosen.start, chosen.stop, chosen.step))
        with np.errstate(over="ignore", invalid="ignore"):
            if isinstance(rows, np.ndarray):
                return np.ascontiguousarray(rows, dtype=np.float32)
            return np.stack([np.asarray(column, dtype=np.float32) for column in rows], axis=1)


def _opened(file: BinaryIO, name: str, limits: Limits) -> _Opened:
    size = length(file)
    if size > limits.file_bytes:
        raise Unreadable(f"{size:,} bytes are more than the limit of {limits.file_bytes:,}")
    head = file.read(64)
    file.seek(0)
    if head[:3] == b"ply":
        found = _ply(file, size)
    elif OFF.match(head):
        found = _off(file, size)
    elif head.startswith(npy.SIGNATURE):
        found = _npy(file, size, limits)
    elif head.startswith(npy.ZIP):
        found = _of_arrays(npy.archived(file, limits))
    elif head.startswith(hdf5.SIGNATURE):
        found = _hdf5(file, limits)
    elif head.startswith(b"PAR1"):
        found = _parquet(file, limits)
    elif name.lower().endswith(".obj"):
        found = _obj(file)
    else:
        raise Unreadable("not a cloud of points in a format that is known")
    if found.cloud.points < 1:
        raise Unreadable("a cloud without points")
    return found


def _ply(file: BinaryIO, size: int) -> _Opened:
    """Elements behind the points are not read: their header is left out."""
    try:
        from plyfile import PlyData
    except ImportError:
        raise missing("a PLY file", "plyfile", "points") from None
    head, mark, _ = file.read(HEAD_BYTES).partition(b"end_header")
    if not mark:
        raise Unreadable("truncated: the header of the PLY has no end")
    lines, elements, names = head.split(b"\n"), [], []
    for number, line in enumerate(lines):
        words = line.split()
        if words[:1] == [b"element"] and len(words) == 3:
            # Every row takes a byte at least.
            if not words[2].isdigit() or int(words[2]) > size:
                raise Unreadable(f"truncated: {words[2].decode(errors='replace')[:20]} rows are claimed by {size:,} bytes")
            if elements and elements[-1][0] == b"vertex":
                lines = [*lines[:number], b""]
                break
            elements.append((words[1], int(words[2])))
        elif words[:1] == [b"property"] and elements and elements[-1][0] == b"vertex":
            if words[1:2] == [b"list"] or len(words) != 3:
                raise Unreadable("points of a PLY with lists of numbers")
            names.append(words[2].decode())
    if not elements or elements[-1][0] != b"vertex":
        raise Unreadable("a PLY without points")
    order = _ordered(names)

    def rows(part: slice) -> Sequence[np.ndarray]:
        file.seek(len(head))
        vertices = PlyData.read(io.BytesIO(b"\n".join(lines) + file.read()), mmap="")["vertex"].data
        return [vertices[name][part] for name in order]

    if elements[-1][1] * len(names) > size:
        raise Unreadable(f"truncated: {elements[-1][1]:,} points of {len(names)} numbers are claimed by {size:,} bytes")
    return _Opened(Cloud(elements[-1][1], tuple(order[3:])), rows)


def _off(file: BinaryIO, size: int) -> _Opened:
    lines = (line for raw in file if (line := raw.split(b"#")[0].strip()))
    kind, _, rest = next(lines).partition(b"OFF")
    counts = (rest.strip() or next(lines)).split()
    points = int(counts[0])
    if not 0 < points <= size // 6:
        raise Unreadable(f"truncated: {points:,} points are claimed by {size:,} bytes")
    table = _numbers(lines, points)
    if len(table) != points:
        raise Unreadable(f"truncated: {len(table):,} of {points:,} points are there")
    # Whatever is said of textures, normals and colours comes in this order.
    beside = [f"normal_{axis}" for axis in AXES] if b"N" in kind else []
    beside += [*COLOURS, "alpha"] if b"C" in kind else []
    return _table(table, beside)


def _obj(file: BinaryIO) -> _Opened:
    """Lines `v x y z`, behind which colours may stand; or a weight, which is passed over."""
    table = _numbers(line[1:] for line in file if line[:2] in (b"v ", b"v\t"))
    return _table(table[:, :3] if table.shape[1] in (3, 4) else table, COLOURS if table.shape[1] in (6, 7) else ())


def _numbers(lines: Iterable[bytes], most: int | None = None) -> np.ndarray:
    """`[N, C]` from lines of as many numbers each."""
    texts = (line.decode("ascii") for line in lines)
    if (first := next(texts, None)) is None:
        raise Unreadable("no points")
    table = np.loadtxt(chain([first], texts), dtype=np.float64, ndmin=2, max_rows=most)
    if table.shape[0] < 1 or table.shape[1] < 3:
        raise Unreadable("no points of three numbers")
    return table


def _npy(file: BinaryIO, size: int, limits: Limits) -> _Opened:
    found = npy.header(file, size)
    if found.dtype.names:
        array = npy.rows(file, found, slice(None), limits)
        return _of_columns({name: array[name] for name in found.dtype.names})
    _refuse_shape(found.shape, found.dtype)
    cloud = Cloud(found.shape[0], _numbered("feature", found.shape[1] - 3))
    return _Opened(cloud, lambda part: npy.rows(file, found, part, limits))


def _hdf5(file: BinaryIO, limits: Limits) -> _Opened:
    import h5py

    with h5py.File(file, "r") as archive:
        names = list(hdf5.names(archive))
    called = {name.rpartition("/")[2].lower(): name for name in names}
    name = next((called[one] for one in POSITIONS if one in called), "")
    with hdf5.array(file, name, limits, (2,)) as array:
        _refuse_shape(array.shape, array.dtype)
        cloud = Cloud(array.shape[0], _numbered("feature", array.shape[1] - 3))

    def rows(part: slice) -> np.ndarray:
        with hdf5.array(file, name, limits, (2,)) as array:
            return hdf5.cut(array, [part], limits)

    return _Opened(cloud, rows)


def _parquet(file: BinaryIO, limits: Limits) -> _Opened:
    """Columns of numbers; those called x, y and z are the positions."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.ParquetFile(file, thrift_string_size_limit=1 << 24, thrift_container_size_limit=1 << 20)
    names = [f.name for f in table.schema_arrow if pa.types.is_integer(f.type) or pa.types.is_floating(f.type)]
    points = table.metadata.num_rows
    order = _ordered(names)
    refuse_large((points, len(order)), 8, limits)

    def rows(part: slice) -> Sequence[np.ndarray]:
        found = table.read(columns=order, use_threads=False)
        if found.num_rows != points:
            raise Unreadable(f"truncated: {found.num_rows:,} of {points:,} points are there")
        return [found[name].to_numpy()[part] for name in order]

    return _Opened(Cloud(points, tuple(order[3:])), rows)


def _of_arrays(arrays: dict[str, np.ndarray]) -> _Opened:
    """One array of positions, and beside it those that have a number, or a row, for every point."""
    called = {name.lower(): name for name in arrays}
    if "offset" in called or any(array.ndim == 3 for array in arrays.values()):
        raise Unreadable("several clouds in one file, where one was expected")
    flat = [name for name, array in arrays.items() if array.ndim == 2 and array.shape[1] >= 3]
    name = next((called[one] for one in POSITIONS if one in called), flat[0] if len(flat) == 1 else None)
    if set(AXES) <= set(called):
        return _of_columns({n: a for n, a in arrays.items() if a.ndim == 1})
    if name is None:
        there = ", ".join(f"{n} {a.shape}" for n, a in list(arrays.items())[:5]) or "nothing"
        raise Unreadable(f"an array of points [N, 3] was expected, called {POSITIONS[0]} or {POSITIONS[1]}; there is {there}")
    _refuse_shape(arrays[name].shape, arrays[name].dtype)
    names, columns = list(_numbered("feature", arrays[name].shape[1] - 3)), [arrays[name]]
    for other, array in arrays.items():
        if other != name and array.ndim in (1, 2) and len(array) == len(arrays[name]) and array.dtype.kind in "biuf":
            columns.append(array.reshape(len(array), -1))
            names += [other] if array.ndim == 1 else _numbered(other, array.shape[1])
    return _table(np.concatenate(columns, axis=1), names)


def _of_columns(columns: dict[str, np.ndarray]) -> _Opened:
    order = _ordered(list(columns))
    lengths = {columns[name].shape for name in order}
    if len(lengths) != 1 or len(next(iter(lengths))) != 1:
        raise Unreadable("columns of different lengths")
    for name in order:
        kept(columns[name].dtype)
    return _Opened(Cloud(len(columns[order[0]]), tuple(order[3:])), lambda part: [columns[name][part] for name in order])


def _table(table: np.ndarray, names: Sequence[str]) -> _Opened:
    """Points that are read already, with names for the first of their features and numbers for the others."""
    count = table.shape[1] - 3
    named = (*names[:count], *_numbered("feature", count)[len(names) :])
    return _Opened(Cloud(len(table), named), lambda part: table[part])


def _refuse_shape(shape: tuple[int, ...], dtype: np.dtype) -> None:
    kept(dtype)
    if len(shape) != 2 or not 3 <= shape[1] <= 3 + MOST_FEATURES:
        raise Unreadable(f"an array of shape {shape} is no cloud: [N, 3] or a few more was expected")


def _numbered(name: str, count: int) -> tuple[str, ...]:
    return tuple(f"{name}_{number}" for number in range(count))


def _ordered(names: Sequence[str]) -> list[str]:
    """Names with x, y and z first."""
    lower = {name.lower(): name for name in reversed(names)}
    if not set(AXES) <= lower.keys():
        raise Unreadable(f"no x, y and z among {', '.join(names[:8]) or 'no columns of numbers'}")
    first = [lower[axis] for axis in AXES]
    return first + [name for name in names if name not in first]
