"""What a Zarr store says of itself: JSON, read without zarr. Which pictures a plate has, as OME-Zarr describes it."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Mapping, Sequence
from itertools import count, takewhile
from pathlib import Path
from typing import Any

from tacit.data.kinds.formats.content import guarded
from tacit.data.payload import STORE, Unreadable

DESCRIPTION = 1 << 24
"""No description is longer than so many bytes."""

STEP = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,100}")
"""What a plate may call a row, a column or a field."""

OUTERMOST = re.compile(rf"(?is)(.*?{re.escape(STORE)})/")
"""Of a path through stores, the path of the first."""

SERIES = "bioformats2raw.layout"
"""Stands in stores that have a group for each series of a file of a microscope, `0` and so on."""


def pictures(store: Path) -> list[str]:
    """Where in a store its pictures lie, `A/1/0`: the fields of a plate's wells, those of a well, or several series.

    Nothing for a store of one picture, or one that cannot be read: whoever reads it will say why.
    """
    try:
        return _pictures(store)
    except Unreadable:
        return []


@guarded
def _pictures(store: Path) -> list[str]:
    attributes = attributes_of(described(store, ""))
    if plate := attributes.get("plate"):
        return [field for well in _paths(plate["wells"]) for field in _fields(store, well)]
    if "well" in attributes:
        return _images(store, "")
    several = SERIES in attributes and (store / "1").is_dir()
    return [str(number) for number in takewhile(lambda number: (store / str(number)).is_dir(), count())] if several else []


def _fields(store: Path, well: str) -> list[str]:
    """The pictures of a well, of any acquisition; a well that does not say what it has stands for itself."""
    try:
        return [f"{well}/{field}" for field in _images(store, well)] or [well]
    except Unreadable:
        return [well]


@guarded
def _images(store: Path, well: str) -> list[str]:
    return _paths(attributes_of(described(store, well))["well"]["images"])


def _paths(listed: Sequence[Mapping[str, Any]]) -> list[str]:
    """The paths that a description lists, once each. Raises `Unreadable` where one does not lead down into the store."""
    found = list(dict.fromkeys(str(each["path"]) for each in listed))
    if not all(STEP.fullmatch(step) for path in found for step in path.split("/")):
        raise Unreadable("a plate's paths are names of rows, columns and fields, as A/1/0")
    return found


def described(path: Path, where: str) -> dict[str, Any]:
    """What a store says of an array or a group in it: version 3's words, or version 2's with its attributes among them."""
    node = f"{where}/" if where else ""
    if (found := _json(path, node + "zarr.json")) is not None:
        return found
    for name in (".zarray", ".zgroup"):
        if (found := _json(path, node + name)) is not None:
            return {**found, "attributes": _json(path, node + ".zattrs") or {}}
    raise Unreadable(f"no Zarr array or group lies at '{where or '.'}'")


def attributes_of(found: Mapping[str, Any]) -> dict[str, Any]:
    """Version 0.5 of OME-Zarr has its words in a place of their own."""
    attributes = found.get("attributes") or {}
    return attributes.get("ome") or attributes


def inside(root: Path, key: str) -> int | None:
    """Bytes of a file of the store; None where there is none. Links out of the store and what is no file are refused.

    Args:
        root: the store, or a picture in it.
        key: where the file lies below that.
    """
    outermost = OUTERMOST.match(f"{root}/")
    store = outermost[1] if outermost else root
    real, base = os.path.realpath(root / key), os.path.realpath(store)
    if os.path.commonpath([real, base]) != base:
        raise Unreadable(f"'{key}' leads out of the store, and is not followed")
    try:
        facts = os.stat(real)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if stat.S_ISDIR(facts.st_mode):
        return None
    if not stat.S_ISREG(facts.st_mode):
        raise Unreadable(f"'{key}' is no regular file")
    return facts.st_size


def _json(path: Path, key: str) -> dict[str, Any] | None:
    size = inside(path, key)
    if size is None:
        return None
    if size > DESCRIPTION:
        raise Unreadable(f"'{key}' has {size:,} bytes: no description is that long")
    found = json.loads((path / key).read_bytes())
    if not isinstance(found, dict):
        raise Unreadable(f"'{key}' describes nothing")
    return found
