"""Arrays in files: MedMNIST's and other `.npz`, `.npy`, labelled HDF5, packs (encoded files back to back: `blob`, `offset`)."""

from __future__ import annotations

import io
import re
import struct
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from tacit.core import archives
from tacit.core.errors import TacitError, said
from tacit.data.kinds.formats import hdf5, npy
from tacit.data.payload import Limits, Payload, memory
from tacit.data.sources.folder import SPLITS
from tacit.data.sources.manifest import read_table, with_roles
from tacit.data.sources.place import Place
from tacit.data.sources.source import Source

SPLIT_FIRST = re.compile(r"^(?P<split>[a-z]+)_(images|x|data)$", re.IGNORECASE)
SPLIT_LAST = re.compile(r"^(images|x|data)_(?P<split>[a-z]+)$", re.IGNORECASE)
WITHOUT_SPLIT = ("images", "image", "x", "data", "points", "arr_0")
LABELS = ("labels", "label", "y", "targets")


def open_arrays(place: Place, title: str = "") -> Source:
    """Samples from the arrays of a file; columns from a `manifest.csv` beside it that has as many rows."""
    parts = _parts(place)
    own = _manifest(place.parent / "manifest.csv", sum(part.length for part in parts))
    what = title or f"the arrays {', '.join(part.name for part in parts)} in {place.name}"
    return _source(parts, own, str(place.parent), what)


def open_labelled(places: Sequence[Place], title: str) -> Source | None:
    """Samples from the arrays of several files; None unless every file has a label for each of its samples.

    By that they are told from files that are one sample each.
    """
    parts: list[Part] = []
    for place in places:
        try:
            held = _parts(place)
        except TacitError:
            return None
        if any(part.labels is None for part in held):
            return None
        parts += [part if part.split else replace(part, split=_split_of(place.name)) for part in held]
        if sum(part.bytes for part in parts) > memory() / 2:
            raise TacitError(f"the arrays of {title} do not fit into memory: give fewer of its files at a time")
    return _source(parts, None, str(places[0].parent), title)


@dataclass(frozen=True)
class Part:
    """Samples under one name in the file."""

    name: str
    length: int
    read: Callable[[int], Payload]
    place: Place
    bytes: int = 0
    split: str | None = None
    labels: list[str] | None = None


def _source(parts: list[Part], own: pa.Table | None, root: str, what: str) -> Source:
    """The parts one behind the other, with the columns of a table that is about all of their rows."""

    def of_each(value: Callable[[Part], Any]) -> list[Any]:
        return [value(part) for part in parts for _ in range(part.length)]

    facts = {part.place.path: part.place.facts() for part in parts}
    table = {
        "path": [f"{part.place.name}/{part.name}/{row}" for part in parts for row in range(part.length)],
        "size": of_each(lambda part: facts[part.place.path][0]),
        "mtime": of_each(lambda part: facts[part.place.path][1]),
    }
    if any(part.split for part in parts):
        table["split"] = of_each(lambda part: part.split)
    if all(part.labels is not None for part in parts):
        table["label"] = [label for part in parts for label in part.labels or ()]
    table |= {name: own[name].to_pylist() for name in own.column_names} if own is not None else {}
    starts = np.cumsum([0, *(part.length for part in parts)])

    def read(row: int, limits: Limits) -> Payload:
        at = int(np.searchsorted(starts, row, side="right")) - 1
        return parts[at].read(row - int(starts[at]))

    return Source(pa.table(table), read, root, what)


def _parts(place: Place) -> list[Part]:
    """What a file of arrays holds."""
    read = _npy if place.suffix == ".npy" else _npz if place.suffix == ".npz" else _hdf5
    try:
        arrays = read(place)
    except Exception as problem:  # A damaged archive raises anything at all.
        raise TacitError(f"cannot read {place}: {said(problem)}") from problem
    if {"blob", "offset"} <= arrays.keys():
        return [_pack(arrays["blob"], arrays["offset"], place)]
    named = {key: m["split"] for key in arrays if (m := SPLIT_FIRST.match(key) or SPLIT_LAST.match(key))}
    keys = [key for key, split in named.items() if split.lower() in SPLITS]
    if not keys:
        lower = {key.lower(): key for key in arrays}
        keys = [lower[name] for name in WITHOUT_SPLIT if name in lower][:1] or [k for k, a in arrays.items() if a.ndim >= 3]
    if len(keys) > 1 and not named:
        raise TacitError(
            f"{place.name} has several arrays that could be the samples ({', '.join(keys)}): call the right one 'images'"
        )
    parts = []
    for key in keys:
        array = arrays[key]
        if array.ndim < 3:
            raise TacitError(
                f"the array '{key}' of {place.name} has shape {array.shape}: samples of [H, W] or [H, W, C] were expected"
            )
        split = SPLITS[named[key].lower()] if key in named else None
        labels = _labels(arrays, key, named.get(key), len(array))
        size = 0 if isinstance(array, np.memmap) else array.nbytes
        parts.append(Part(key, len(array), array.__getitem__, place, size, split, labels))
    if not parts:
        there = ", ".join(f"{k} {a.shape}" for k, a in arrays.items()) or "nothing"
        raise TacitError(f"{place.name} has no array of samples: train_images or images was expected, it has {there}")
    return parts


def _split_of(name: str) -> str | None:
    """The split that a file's name means: `ply_data_train0.h5`."""
    words = re.findall("[a-z]+", name.lower())
    return next((SPLITS[word] for word in words if word in SPLITS), None)


def _labels(arrays: dict[str, np.ndarray], key: str, split: str | None, length: int) -> list[str] | None:
    """Labels as strings, where there is one per sample."""
    names = [f"{split}_{name}" for name in LABELS] + [f"{name}_{split}" for name in LABELS] if split else list(LABELS)
    lower = {k.lower(): k for k in arrays if k != key}
    for name in names:
        if name.lower() in lower:
            values = arrays[lower[name.lower()]]
            if values.size == length == len(values):
                return [str(value) for value in values.reshape(-1).tolist()]
    return None


def _pack(blob: np.ndarray, offset: np.ndarray, place: Place) -> Part:
    if blob.ndim != 1 or blob.dtype != np.uint8 or offset.ndim != 1 or offset.dtype.kind not in "iu" or len(offset) < 2:
        raise TacitError(f"{place.name} is no pack: 'blob' must be bytes, 'offset' their [N + 1] bounds")
    offset = offset.astype(np.int64)
    if offset[0] < 0 or offset[-1] > len(blob) or (np.diff(offset) < 0).any():
        raise TacitError(f"{place.name} is no pack: its offsets do not rise from 0 to {len(blob)}")
    return Part("files", len(offset) - 1, lambda row: blob[offset[row] : offset[row + 1]].tobytes(), place)


def _manifest(place: Place, count: int) -> pa.Table | None:
    """What a manifest beside the arrays says of their rows; None where there is none, or where it is about something else."""
    if not place.is_file():
        return None
    table = read_table(place)
    return with_roles(table, None, place, needs_path=False) if len(table) == count else None


def _npy(place: Place) -> dict[str, np.ndarray]:
    if place.fs is None:
        with place.open():
            return {"images": np.load(place.path, mmap_mode="r", allow_pickle=False)}
    return {"images": np.load(io.BytesIO(place.read(memory() // 2)), allow_pickle=False)}


def _hdf5(place: Place) -> dict[str, np.ndarray]:
    limits = Limits(file_bytes=memory() // 2)
    return hdf5.whole(place.payload(replace(limits, whole=False)), {*WITHOUT_SPLIT, *LABELS}, limits)


def _npz(place: Place) -> dict[str, np.ndarray]:
    """Its arrays: mapped where they are stored plainly, else decompressed into memory. Python objects are refused."""
    with place.open() as file:
        archive = archives.archive(file if place.fs is None else io.BytesIO(file.read()))
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        needed = sum(i.file_size for i in members.values() if i.compress_type != zipfile.ZIP_STORED or place.fs is not None)
        if needed > memory() / 2:
            raise ValueError(f"its {needed:,} bytes do not fit into memory: save it with numpy.savez, not savez_compressed")
        arrays = {}
        for name, info in members.items():
            with archive.open(info) as member:
                head = npy.header(member, info.file_size)  # pyright: ignore[reportArgumentType]
            if info.compress_type == zipfile.ZIP_STORED and place.fs is None and np.prod(head.shape):
                at = _data_offset(file, info) + head.start
                arrays[name] = np.memmap(place.path, head.dtype, "r", at, head.shape, "F" if head.fortran else "C")
            else:
                with archive.open(info) as member:
                    arrays[name] = np.lib.format.read_array(member, allow_pickle=False)
        return arrays


def _data_offset(file, info: zipfile.ZipInfo) -> int:
    """Where a member's bytes begin: behind its local header, whose two last fields are lengths."""
    file.seek(info.header_offset)
    header = file.read(30)
    name, extra = struct.unpack("<HH", header[26:30])
    return info.header_offset + 30 + name + extra
