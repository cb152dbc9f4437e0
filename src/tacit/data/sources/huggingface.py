"""A Hugging Face data set as `save_to_disk` leaves it, read with PyArrow alone."""

from __future__ import annotations

import json
import posixpath
from typing import Any

import pyarrow as pa

from tacit.core.errors import TacitError, said
from tacit.data.index import sound
from tacit.data.payload import Limits, Unreadable, memory
from tacit.data.sources.folder import SPLITS
from tacit.data.sources.manifest import read_from_column, with_roles
from tacit.data.sources.place import Place
from tacit.data.sources.source import Read, Source

PACKED_BYTES = 1 << 30
"""What packed columns may unpack to; as `save_to_disk` writes them, they are not packed."""

JSON_BYTES = 64 << 20
"""A longer description of a data set describes none."""


def is_saved(place: Place) -> bool:
    """Whether a folder is a saved `Dataset` or `DatasetDict`."""
    return (place / "dataset_dict.json").is_file() or (
        (place / "state.json").is_file() and (place / "dataset_info.json").is_file()
    )


def open_saved(place: Place, columns: Any = None) -> Source:
    """All splits of a saved data set, one after the other; labels by their names."""
    try:
        return _opened(place, columns)
    except TacitError:
        raise
    except Exception as problem:  # What describes a damaged data set may be of any type, and lead anywhere.
        raise TacitError(f"cannot read the saved data set {place}: {said(problem)}") from problem


def _opened(place: Place, columns: Any) -> Source:
    if (place / "dataset_dict.json").is_file():
        splits = {name: _inside(place, name) for name in _json(place / "dataset_dict.json")["splits"]}
    else:
        splits = {"": place}
    tables, cells = [], []
    for split, folder in splits.items():
        table, files = _split(folder, split, columns)
        if split:
            table = table.append_column("split", pa.array([SPLITS.get(split.lower(), split)] * len(table), pa.string()))
        tables.append(table)
        cells.append(files)
    starts = [0]
    for table in tables:
        starts.append(starts[-1] + len(table))

    def read(row: int, limits: Limits) -> bytes:
        part = next(i for i in range(len(cells)) if row < starts[i + 1])
        return cells[part](row - starts[part], limits)

    there = f" with splits {', '.join(splits)}" if "" not in splits else ""
    return Source(
        pa.concat_tables(tables, promote_options="default"), read, str(place), f"a saved Hugging Face data set{there}"
    )


def _split(folder: Place, split: str, columns: Any) -> tuple[pa.Table, Read]:
    state, info = _json(folder / "state.json"), _json(folder / "dataset_info.json")
    features = info.get("features") or {}
    table = _arrow(folder, state["_data_files"])
    if picked := state.get("_indices_data_files") or state.get("_indices_files"):
        table = table.take(_arrow(folder, picked).column(0))
    images = [name for name, feature in features.items() if isinstance(feature, dict) and feature.get("_type") == "Image"]
    given = dict(columns or {})
    if "path" not in given and images and images[0] in table.column_names:
        given["path"] = images[0]
    for name, feature in features.items():
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and name in table.column_names:
            names = list(feature["names"])
            values = [names[v] if v is not None and 0 <= v < len(names) else None for v in table[name].to_pylist()]
            table = table.set_column(table.column_names.index(name), name, pa.array(values, pa.string()))
    table = with_roles(table, given, folder)
    files, names = read_from_column(table["path"], folder)
    sizes = [_inside(folder, entry["filename"]).facts() for entry in state["_data_files"]]
    facts = {
        "path": pa.array([f"{split}/{name}" if split else name for name in names], pa.string()),
        "size": pa.array([sum(size for size, _ in sizes)] * len(names), pa.int64()),
        "mtime": pa.array([max(mtime for _, mtime in sizes)] * len(names), pa.int64()),
    }
    # Lists and further files have no place in the index.
    plain = [n for n in table.column_names if n != "path" and not pa.types.is_nested(table[n].type)]
    return pa.table(facts | {name: table[name] for name in plain}), files


def _arrow(folder: Place, entries: Any) -> pa.Table:
    """Streams of Arrow, mapped into memory where they lie on this machine."""
    batches, allocated = [], pa.total_allocated_bytes()
    for entry in entries:
        place = _inside(folder, entry["filename"])
        with place.open():
            pass
        source = pa.memory_map(place.path) if place.fs is None else pa.BufferReader(place.read(memory() // 4))
        with pa.ipc.open_stream(source) as stream:
            for batch in stream:
                batches.append(batch)
                # Batches are read where they lie, unless they are packed: then a small file can become any size.
                if (more := pa.total_allocated_bytes() - allocated) > PACKED_BYTES:
                    raise ValueError(f"it unpacks to more than {more:,} bytes")
    return sound(pa.Table.from_batches(batches))


def _inside(folder: Place, name: Any) -> Place:
    """A file or folder directly in `folder`, and nowhere else."""
    if not isinstance(name, str) or posixpath.basename(name) != name or name in ("", ".", ".."):
        raise ValueError(f"it names {name!r}, which does not lie in it")
    return folder / name


def _json(place: Place) -> dict[str, Any]:
    try:
        content = json.loads(place.read(JSON_BYTES))
    except (Unreadable, ValueError, RecursionError) as problem:
        raise TacitError(f"cannot read {place}: {said(problem)}") from problem
    if not isinstance(content, dict):
        raise TacitError(f"cannot read {place}: a JSON object was expected")
    return content
