"""Zarr on this machine's disk, versions 2 and 3: any part of one array, or of the finest level that OME-Zarr describes.

A store is a folder. Its descriptions are judged before zarr sees them: numbers alone, a few codecs that pack bytes, and nothing
that would be unpickled.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tacit.data.kinds.formats.content import DEFAULT_LIMITS, as_kept, guarded, kept, missing, refuse_large
from tacit.data.kinds.formats.volume import Laid, Volume, as_spacing
from tacit.data.kinds.formats.zarr_words import SERIES, attributes_of, described
from tacit.data.payload import STORE, Limits, Unreadable

if TYPE_CHECKING:
    from zarr import Array

    from tacit.data.kinds.formats.zarr_files import Packing

EXTENSIONS = frozenset({STORE})

CODECS = ("blosc", "gzip", "lz4", "zlib", "zstd")
"""What may pack the values."""

MOST_PIECES = 1 << 14
"""So many pieces of an array are read at once: each is looked for on the disk."""

EACH = "name each (plate.zarr/A/1/0), or give the plate itself, or its folder, as the data"

MILLIMETRES = {"angstrom": 1e-7, "nanometer": 1e-6, "micrometer": 1e-3, "millimeter": 1.0, "centimeter": 10.0, "meter": 1e3}
NUMBERS = re.compile(r"[<>|]([bui]1|[uif][248])|bool|u?int(8|16|32|64)|float(16|32|64)")
AXES = "tczyx"


@dataclass(frozen=True, eq=False)
class Store:
    """An opened array and what is known of it.

    Attributes:
        array: zarr's; nothing of its values has been read.
        axes: a letter of `AXES` for each of its axes.
        names: of the channels; empty where the store does not say.
        spacing: millimetres between voxels in depth, height and width; None where it does not say.
    """

    array: Array
    axes: str
    names: tuple[str, ...] = ()
    spacing: tuple[float, float, float] | None = None

    def size(self, axis: str) -> int:
        return self.array.shape[self.axes.index(axis)] if axis in self.axes else 1


@guarded
def volume(path: Path, limits: Limits = DEFAULT_LIMITS) -> tuple[Volume, Callable[[Sequence[slice]], np.ndarray]]:
    """What a volume is (depth first, as it lies), and what reads a box of it, `[*box, C]`."""
    store = _opened(path, {3: "zyx", 4: "zyxc"}, limits)
    if store.size("z") == 1:
        raise Unreadable(f"a picture of {store.size('c')} channel(s) in one plane is no volume: give --kind channels")
    depth, height, width = extent = tuple(store.size(axis) for axis in "zyx")
    known = Volume((depth, height, width), store.size("c"), kept(store.array.dtype), store.spacing, "")

    def read(box: Sequence[slice]) -> np.ndarray:
        return _read(store, "zyxc", dict(zip("zyx", Laid().stored(box, extent), strict=True)), limits)

    return known, guarded(read)


@guarded
def picture(path: Path, limits: Limits = DEFAULT_LIMITS) -> tuple[Store, Callable[[slice], np.ndarray]]:
    """A picture of channels, and what reads some of them, `[C, H, W]`."""
    store = _opened(path, {3: "cyx"}, limits)
    if store.size("z") > 1:
        raise Unreadable(f"a stack of {store.size('z')} planes is no picture: give --kind volume")
    return store, guarded(lambda channels: _read(store, "zcyx", {"c": channels}, limits)[0])


def _read(store: Store, order: str, part: Mapping[str, slice], limits: Limits) -> np.ndarray:
    """A part of the values with their axes in this order, one long where the array has no such axis."""
    array, order = store.array, "t" + order
    chosen = [range(store.size(axis))[part.get(axis, slice(None))] for axis in store.axes]
    refuse_large([len(one) for one in chosen], array.dtype.itemsize, limits)
    pieces = [one[-1] // side - one[0] // side + 1 for one, side in zip(chosen, array.chunks, strict=True)]
    if math.prod(pieces) > MOST_PIECES:
        raise Unreadable(f"these values lie in {math.prod(pieces):,} pieces, more than {MOST_PIECES:,}: take a part")
    values = np.asarray(array[tuple(slice(one[0], one[-1] + 1, one.step) for one in chosen)])
    sizes = dict(zip(store.axes, values.shape, strict=True))
    turned = values.transpose(sorted(range(values.ndim), key=lambda at: order.index(store.axes[at])))
    return as_kept(turned.reshape([sizes.get(axis, 1) for axis in order])[0])


def _opened(path: Path, plain: Mapping[int, str], limits: Limits) -> Store:
    """The array of a store; `plain` are the axes of one that nothing is said of, by their number."""
    where, found = "", described(path, "")
    attributes = attributes_of(found)
    if SERIES in attributes:
        where, found = "0", described(path, "0")
        attributes = attributes_of(found)
        if (path / "1").exists():
            raise Unreadable(f"several pictures in one store: {EACH}")
    if "shape" in found:
        axes = plain.get(len(found["shape"]), "")
        if not axes:
            raise Unreadable(
                f"an array of {len(found['shape'])} axes without names: {' or '.join(plain.values())} was expected"
            )
        return Store(_array(path, where, found, limits), axes)
    if not attributes.get("multiscales"):
        if attributes.keys() & {"plate", "well"}:
            raise Unreadable(f"a plate of many pictures: {EACH}")
        raise Unreadable("a group without 'multiscales': one array, or one picture as OME-Zarr describes it, was expected")
    scales = attributes["multiscales"][0]
    level = scales["datasets"][0]
    where = f"{where}/{level['path']}".strip("/")
    axes = [axis if isinstance(axis, dict) else {"name": axis} for axis in scales.get("axes", AXES)]
    array = _array(path, where, described(path, where), limits)
    store = Store(
        array, "".join(str(axis["name"]).lower() for axis in axes), (), _spacing(axes, level, scales, len(array.shape))
    )
    if len(store.axes) != array.ndim or len(set(store.axes) & set(AXES)) != array.ndim or not {"y", "x"} <= set(store.axes):
        raise Unreadable(f"axes '{store.axes[:20]}' of an array of {array.ndim}: some of t, c, z, y and x were expected")
    if store.size("t") > 1:
        raise Unreadable(f"{store.size('t')} points in time: one was expected")
    labels = [" ".join(str(each.get("label") or "").split())[:100] for each in attributes.get("omero", {}).get("channels", [])]
    return Store(array, store.axes, tuple(labels) if all(labels) and len(labels) == store.size("c") else (), store.spacing)


def _array(path: Path, where: str, found: dict[str, Any], limits: Limits) -> Array:
    """The array there, if its description is harmless."""
    if "shape" not in found:
        raise Unreadable(f"no array lies at '{where or '.'}'")
    dtype = found.get("dtype", found.get("data_type"))
    if not isinstance(dtype, str) or not NUMBERS.fullmatch(dtype):
        raise Unreadable(f"values of type {str(dtype)[:50]} are no numbers to learn from; Python objects are never loaded")
    if min(found["shape"], default=0) < 1:
        raise Unreadable(f"an array of shape {found['shape']} has no values")
    packing = _packing(found, np.dtype(dtype).itemsize, limits)
    import zarr

    version = found.get("zarr_format")
    store = _files().Files.at(path, packing, limits)
    return zarr.open_array(store, path=where, mode="r", zarr_format=3 if version == 3 else 2)


def _packing(found: Mapping[str, Any], itemsize: int, limits: Limits) -> Packing:
    """How values are packed, where that is by no more than one codec that is known."""
    pieces = checksums = tail = 0
    if found.get("zarr_format") == 3:
        codecs, shape = found["codecs"], found["chunk_grid"]["configuration"]["chunk_shape"]
        if [each["name"] for each in codecs] == ["sharding_indexed"]:
            shard = codecs[0]["configuration"]
            codecs, index = shard["codecs"], [each["name"] for each in shard["index_codecs"]]
            if index not in (["bytes"], ["bytes", "crc32c"]) or shard.get("index_location", "end") != "end":
                raise Unreadable("the index of its shards lies elsewhere than at their ends, or is packed")
            pieces = math.prod(big // small for big, small in zip(shape, shard["chunk_shape"], strict=True))
            shape, checksums = shard["chunk_shape"], 4 * (len(index) - 1)
        names = [each["name"] for each in codecs if each["name"] not in ("bytes", "crc32c", "transpose")]
        tail = 4 * sum(each["name"] == "crc32c" for each in codecs)
    else:
        shape = found["chunks"]
        names = [str(each.get("id")) for each in (found.get("compressor"), *(found.get("filters") or ())) if each]
    if len(names) > 1 or not set(names) <= set(CODECS):
        raise Unreadable(f"values packed by {', '.join(names)[:100]}: at most one of {', '.join(CODECS)} was expected")
    if min(shape, default=0) < 1:
        raise Unreadable(f"pieces of shape {shape} have no values")
    refuse_large(shape, itemsize, limits)
    if pieces > limits.file_bytes // 16:
        raise Unreadable(f"{pieces:,} pieces in a shard")
    return _files().Packing("".join(names), math.prod(shape) * itemsize, pieces, checksums, tail)


def _spacing(
    axes: Sequence[Mapping[str, Any]], level: Mapping[str, Any], scales: Mapping[str, Any], count: int
) -> tuple[float, float, float] | None:
    """Millimetres along z, y and x where all three have a length."""
    total = np.ones(count)
    for each in (level, scales):
        for change in each.get("coordinateTransformations") or ():
            if change.get("type") == "scale" and len(change.get("scale", ())) == count:
                total = total * np.array(change["scale"], dtype=np.float64)
    lengths = {
        axis["name"]: step * MILLIMETRES[axis["unit"]]
        for axis, step in zip(axes, total, strict=False)
        if axis.get("unit") in MILLIMETRES
    }
    return as_spacing([lengths[axis] for axis in "zyx"]) if set("zyx") <= set(lengths) else None


def _files() -> Any:
    """The module that knows zarr, which is looked for only where there is a store."""
    try:
        from tacit.data.kinds.formats import zarr_files
    except ImportError:
        raise missing("Zarr", "zarr 3", "medical") from None
    return zarr_files
