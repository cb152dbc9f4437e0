"""Arrays in a file: MedMNIST's and other `.npz`, `.npy`, and packs (encoded files back to back: `blob` and `offset`)."""

from __future__ import annotations

import io
import re
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from tacit.core import archives
from tacit.core.errors import TacitError, said
from tacit.data.kinds.formats import npy
from tacit.data.payload import Limits, Payload, memory
from tacit.data.sources.folder import SPLITS
from tacit.data.sources.manifest import read_table, with_roles
from tacit.data.sources.place import Place
from tacit.data.sources.source import Source

SPLIT_FIRST = re.compile(r"^(?P<split>[a-z]+)_(images|x|data)$", re.IGNORECASE)
SPLIT_LAST = re.compile(r"^(images|x|data)_(?P<split>[a-z]+)$", re.IGNORECASE)
WITHOUT_SPLIT = ("images", "image", "x", "data", "arr_0")
LABELS = ("labels", "label", "y", "targets")


def open_arrays(place: Place, title: str = "") -> Source:
    """Samples from the arrays of a file; columns from a `manifest.csv` beside it that has as many rows."""
    try:
        arrays = _npy(place) if place.suffix == ".npy" else _npz(place)
        size, mtime = place.facts()
    except Exception as problem:  # A damaged archive raises anything at all.
        raise TacitError(f"cannot read {place}: {said(problem)}") from problem
    if {"blob", "offset"} <= arrays.keys():
        parts = [_pack(arrays["blob"], arrays["offset"], place)]
    else:
        parts = _parts(arrays, place)
    count = sum(part.length for part in parts)
    own = _manifest(place.parent / "manifest.csv", count)
    paths = [f"{place.name}/{part.name}/{row}" for part in parts for row in range(part.length)]
    table = {"path": paths, "size": np.full(count, size), "mtime": np.full(count, mtime)}
    if any(part.split for part in parts):
        table["split"] = [part.split for part in parts for _ in range(part.length)]
    if all(part.labels is not None for part in parts):
        table["label"] = [label for part in parts for label in part.labels or ()]
    table |= {name: own[name].to_pylist() for name in own.column_names} if own is not None else {}
    starts = np.cumsum([0, *(part.length for part in parts)])

    def read(row: int, limits: Limits) -> Payload:
        at = int(np.searchsorted(starts, row, side="right")) - 1
        return parts[at].read(row - int(starts[at]))

    what = title or f"the arrays {', '.join(part.name for part in parts)} in {place.name}"
    return Source(pa.table(table), read, str(place.parent), what)


@dataclass(frozen=True)
class Part:
    """Samples under one name in the file."""

    name: str
    length: int
    read: Callable[[int], Payload]
    split: str | None = None
    labels: list[str] | None = None


def _parts(arrays: dict[str, np.ndarray], place: Place) -> list[Part]:
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
        parts.append(Part(key, len(array), array.__getitem__, split, _labels(arrays, key, named.get(key), len(array))))
    if not parts:
        there = ", ".join(f"{k} {a.shape}" for k, a in arrays.items()) or "nothing"
        raise TacitError(f"{place.name} has no array of samples: train_images or images was expected, it has {there}")
    return parts


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
    return Part("files", len(offset) - 1, lambda row: blob[offset[row] : offset[row + 1]].tobytes())


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
