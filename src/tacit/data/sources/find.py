"""Which source is this? The one place that knows all of them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tacit.core.errors import TacitError, nearest
from tacit.data.kinds.formats import hdf5
from tacit.data.kinds.kind import endings
from tacit.data.payload import Unreadable
from tacit.data.samples import SAMPLES
from tacit.data.sources import manifest
from tacit.data.sources.arrays import open_arrays, open_labelled
from tacit.data.sources.dataset import is_dataset, open_dataset
from tacit.data.sources.folder import open_folder
from tacit.data.sources.huggingface import is_saved, open_saved
from tacit.data.sources.listed import open_list, open_store, open_text
from tacit.data.sources.place import Place
from tacit.data.sources.shards import expanded, open_shards
from tacit.data.sources.source import Source

SAMPLE = "sample:"
ARRAYS = (".npz", ".npy", *sorted(hdf5.EXTENSIONS))
PACKED = (".gz", ".tgz", ".bz2", ".xz", ".zst", ".zip", ".7z", ".rar")


def source_of(data: Any, kind: str | None, columns: Mapping[str, str] | None) -> Source:
    """The source that `data` is. Raises `TacitError` where it is none."""
    if not isinstance(data, (str, os.PathLike)):
        if isinstance(data, (list, tuple)) and data and all(isinstance(p, (str, os.PathLike)) for p in data):
            return open_list(data)
        if isinstance(data, (list, tuple)) and not data:
            raise TacitError("an empty list was given as data: give the paths of files")
        if is_dataset(data):
            return open_dataset(data)
        raise TacitError(
            f"data of type {type(data).__name__} cannot be read: give a path, a URL, a list of paths or a torch Dataset"
        )
    text = os.fspath(data)
    if text.startswith(SAMPLE):
        return _sample(text.removeprefix(SAMPLE))
    place = Place.of(text)
    try:
        return _at(place, text, kind, columns)
    except TacitError:
        raise
    except Exception as problem:
        if place.fs is None:
            raise
        # What a server or a missing password makes a remote file system raise is its own affair.
        raise TacitError(f"cannot read {place}: {' '.join(str(problem).split())[:200]}") from problem


def _at(place: Place, text: str, kind: str | None, columns: Mapping[str, str] | None) -> Source:
    if columns and place.suffix not in manifest.SUFFIXES and not is_saved(place):
        raise TacitError(f"{place} has no columns to name: columns belong to a manifest ({', '.join(manifest.SUFFIXES)})")
    if "{" in text and not place.exists():
        return open_shards([Place.of(part) for part in expanded(text)], kind)
    if place.is_store():
        return open_store(place)
    if place.is_folder():
        return _folder(place, kind, columns)
    if place.is_file():
        return _file(place, kind, columns)
    if place.exists():
        raise TacitError(f"{place} is neither a folder nor a regular file")
    raise TacitError(f"no such file or folder: {place}{_nearest_there(place)}")


def _sample(name: str) -> Source:
    if name not in SAMPLES:
        raise TacitError(f"no bundled sample '{name}': there are {', '.join(SAMPLES)}{nearest(name, SAMPLES)}")
    what, place = f"the bundled sample {name}", Place(str(SAMPLES[name].folder))
    packed = place / "images.npz"
    source = open_arrays(packed, what) if packed.exists() else replace(_folder(place, None, None), what=what)
    # The same everywhere: when and where it was installed says nothing about its content.
    return replace(source, root=SAMPLE + name, table=source.table.drop_columns("mtime"))


def _folder(place: Place, kind: str | None, columns: Mapping[str, str] | None) -> Source:
    try:
        names = [name for name in place.names() if not name.startswith(".")]
    except OSError as problem:
        raise TacitError(f"cannot list {place}: {problem.strerror}") from problem
    if is_saved(place):
        return open_saved(place, columns)
    if (arrays := _arrays(place, names)) is not None:
        return arrays
    tars = [name for name in names if name.endswith(".tar")]
    if tars and not any((place / name).is_folder() or name.lower().endswith(endings()) for name in names):
        return open_shards([place / name for name in tars], kind)
    return open_folder(place, kind)


def _arrays(place: Place, names: list[str]) -> Source | None:
    """A folder's files of arrays where they hold many samples each: as a manifest beside the only one says, or their labels."""
    described, what = "manifest.csv" in names, f"the pack {place.name}"
    if described and "images.npz" in names:
        return open_arrays(place / "images.npz", what)
    files = [name for name in names if name.lower().endswith(endings())]
    if not files or not all(name.lower().endswith(ARRAYS) for name in files):
        return None
    if described and len(files) == 1:
        try:
            source = open_arrays(place / files[0], what)
            if len(manifest.read_table(place / "manifest.csv")) == len(source.table):
                return source
        except TacitError:  # it is one sample, or something else altogether
            return None
    return open_labelled([place / name for name in files], f"the labelled arrays in {place.name}")


def _file(place: Place, kind: str | None, columns: Mapping[str, str] | None) -> Source:
    suffix = place.suffix
    try:
        if suffix in manifest.SUFFIXES:
            return manifest.open_manifest(place, columns)
        if suffix in (".npz", ".npy"):
            return open_arrays(place)
        if suffix in hdf5.EXTENSIONS and (labelled := open_labelled([place], f"the labelled arrays in {place.name}")):
            return labelled
        if suffix == ".tar":
            return open_shards([place], kind)
        if suffix in (".txt", ".lst"):
            return open_text(place)
    except Unreadable as problem:
        raise TacitError(f"cannot read {place}: {problem}") from problem
    if suffix in PACKED and not place.name.lower().endswith(endings()):
        raise TacitError(f"{place} is packed: unpack it, then give the folder or the .tar")
    return open_list([str(place)])


def _nearest_there(place: Place) -> str:
    try:
        return nearest(place.name, place.parent.names() if place.fs or place.parent.path else os.listdir())
    except OSError:
        return ""
