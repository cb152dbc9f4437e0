"""A table that names the files: CSV, TSV, JSON lines or Parquet; also Parquet with the files' bytes in a column."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Mapping
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from tacit.core.errors import TacitError, nearest, said
from tacit.data.index import sound, spread
from tacit.data.kinds.kind import endings, ends_in
from tacit.data.payload import Limits, Unreadable, memory
from tacit.data.sources.folder import SPLITS, read_files, read_masks, unescaped
from tacit.data.sources.listed import LIST_BYTES, files_table
from tacit.data.sources.place import Place
from tacit.data.sources.source import Read, Source

NAMES = {
    "path": (
        "path",
        "file",
        "image",
        "filename",
        "file_name",
        "filepath",
        "file_path",
        "image_path",
        "img",
        "img_path",
        "image_file",
    ),
    "label": ("label", "class", "category", "target", "class_name", "labels", "y"),
    "split": ("split", "subset", "partition", "fold", "set"),
    "caption": ("caption", "captions", "text", "description", "title"),
    "mask": ("mask", "mask_path", "mask_file", "seg", "segmentation", "label_map", "point_labels"),
    "group": ("group", "patient", "patient_id", "subject", "subject_id", "case", "case_id", "scene", "slide", "video"),
}
"""What columns are usually called, the surest name first; compared in lower case."""

TAKEN = ("size", "mtime", "offset", "content")
"""Columns that the index fills in itself; the owner's columns of these names become `own_...`."""

PARQUET_ROWS = 4096

DEEPEST = 100
"""JSON that is nested deeper than this is an attack."""

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".pq")


def open_manifest(place: Place, columns: Mapping[str, str] | None) -> Source:
    """Paths are relative to the manifest; absolute paths and URLs stand for themselves."""
    table = with_roles(read_table(place), columns, place)
    root = place.parent
    what = f"the manifest {place.name}"
    if not pa.types.is_string(table["path"].type):
        read, names = read_from_column(table["path"], root)
        facts = files_table(root, []).slice(0, 0)
        size, mtime = place.facts()
        facts = pa.table({"path": names, "size": [size] * len(names), "mtime": [mtime] * len(names)}, schema=facts.schema)
        return Source(_beside(facts, table), read, str(root), f"{what} with the files in its column 'path'")
    facts = files_table(root, [unescaped(p or "") for p in table["path"].to_pylist()])
    read, masks = read_files(root.__truediv__, facts), read_masks(root, table)
    return Source(_beside(facts, table), read, str(root), what, read_mask=masks)


def read_table(place: Place) -> pa.Table:
    """The table as it is written, cells of text files as strings. A `TacitError` where it cannot be read."""
    try:
        content = place.read(LIST_BYTES)
        if place.suffix in (".parquet", ".pq"):
            return sound(parquet(io.BytesIO(content)))
        if place.suffix in (".jsonl", ".ndjson"):
            return sound(_lines_of_json(content))
        return sound(_separated(content, place.suffix))
    except (Unreadable, pa.ArrowException, OSError, ValueError) as problem:
        raise TacitError(f"cannot read {place} as {place.suffix[1:].upper()}: {said(problem)}") from problem


def parquet(source: str | BinaryIO, columns: list[str] | None = None) -> pa.Table:
    """A Parquet file. A `ValueError` where it unpacks to more than a quarter of the memory, as a very small one can."""
    import pyarrow.parquet as pq

    file, parts, size = pq.ParquetFile(source), [], 0
    for part in file.iter_batches(PARQUET_ROWS, columns=columns):
        parts.append(part)
        size += part.nbytes
        if size > memory() // 4:
            raise ValueError(f"it unpacks to more than {size:,} bytes")
    return pa.Table.from_batches(parts, parts[0].schema if parts else file.schema_arrow)


def with_roles(table: pa.Table, columns: Mapping[str, str] | None, place: Place, needs_path: bool = True) -> pa.Table:
    """The table with its columns renamed to what they mean (see `NAMES`); the others as they are."""
    table = table.rename_columns(_told_apart(table.column_names))
    for role, name in (columns or {}).items():
        if role not in NAMES:
            raise TacitError(
                f"columns cannot say what '{role}' is: it says which columns are {', '.join(NAMES)}{nearest(role, NAMES)}"
            )
        if name not in table.column_names:
            there = ", ".join(table.column_names)
            raise TacitError(f"{place.name} has no column '{name}': it has {there}{nearest(name, table.column_names)}")
    meant = {role: _column(role, table, columns or {}) for role in NAMES}
    if meant["path"] is None and needs_path:
        meant["path"] = _looks_like_files(table)
    if meant["path"] is None and needs_path:
        raise TacitError(
            f"{place.name} does not say where the files are: none of its columns {', '.join(table.column_names)} is called"
            " path, file or image, or holds file names; name one with columns={'path': ...}"
        )
    role_of = {name: role for role, name in meant.items() if name is not None}
    # A column that was not given a role must not bear the name of one.
    renamed = [role_of.get(n) or (f"own_{n}" if n in (*TAKEN, *NAMES) else n) for n in table.column_names]
    table = table.rename_columns(_told_apart(renamed))
    for role in ("label", "split", "group"):
        if role in renamed:
            table = _as_strings(table, role)
    if "split" in renamed:
        at = table.column_names.index("split")
        values = [v and SPLITS.get(v.lower(), v) for v in table["split"].to_pylist()]
        table = table.set_column(at, "split", pa.array(values, pa.string()))
    return table


def read_from_column(column: pa.ChunkedArray, root: Place) -> tuple[Read, list[str]]:
    """Reads a column of bytes, or of `{bytes, path}`; also its names, one a row."""
    struct = pa.types.is_struct(column.type)
    fields = [field.name for field in column.type] if struct else []
    if (struct and "bytes" not in fields) or not (struct or _is_binary(column.type)):
        raise TacitError(f"a column of type {column.type} does not hold files: bytes, or bytes and path, were expected")

    def read(row: int, limits: Limits) -> bytes:
        cell = column[row].as_py()
        content = cell.get("bytes") if isinstance(cell, dict) else cell
        if content is not None:
            if len(content) > limits.file_bytes:
                raise Unreadable(f"{len(content):,} bytes are more than the limit of {limits.file_bytes:,}")
            return content
        if isinstance(cell, dict) and cell.get("path"):
            return (root / cell["path"]).read(limits.file_bytes)
        raise Unreadable("no bytes and no path")

    rows = range(len(column))
    if "path" not in fields:
        return read, [f"row {row}" for row in rows]
    paths = pa.chunked_array([chunk.field("path").cast(pa.string()) for chunk in column.chunks], pa.string()).to_pylist()
    return read, [path or f"row {row}" for row, path in zip(rows, paths, strict=True)]


def _lines_of_json(content: bytes) -> pa.Table:
    import pyarrow.json as pj

    # PyArrow follows brackets as deep as they go, to the end of the stack and of the process.
    for line in content.splitlines():
        if line.count(b"[") + line.count(b"{") > DEEPEST and _depth(line) > DEEPEST:
            raise ValueError(f"it is nested more than {DEEPEST} deep")
    return pj.read_json(io.BytesIO(content))


def _depth(line: bytes) -> int:
    """How many brackets are open at a time."""
    brackets = np.frombuffer(re.sub(rb'"(?:[^"\\]|\\.)*"?', b"", line), np.uint8)
    opening, closing = np.isin(brackets, (*b"[{",)), np.isin(brackets, (*b"]}",))
    return int((opening.astype(np.int64) - closing).cumsum().max(initial=0))


def _separated(content: bytes, suffix: str) -> pa.Table:
    import pyarrow.csv as pv

    if not content.strip():
        raise ValueError("the file is empty")
    first = content.lstrip(b"\xef\xbb\xbf").split(b"\n", 1)[0]
    mark = "\t" if suffix == ".tsv" else max(",;\t", key=lambda m: first.count(m.encode()))
    parse = pv.ParseOptions(delimiter=mark, newlines_in_values=True)
    names = pv.open_csv(io.BytesIO(content), parse_options=parse).schema.names
    # As strings: "007" is a name, not a number.
    convert = pv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False)
    return pv.read_csv(io.BytesIO(content), parse_options=parse, convert_options=convert)


def _told_apart(names: list[str]) -> list[str]:
    """The names of columns, with a number behind those that stand there already."""
    told: dict[str, None] = {}
    times: Counter[str] = Counter()
    for name in names:
        other = name
        while other in told:
            times[name] += 1
            other = f"{name}_{times[name] + 1}"
        told[other] = None
    return list(told)


def _column(role: str, table: pa.Table, columns: Mapping[str, str]) -> str | None:
    if role in columns:
        return columns[role]
    by_name = {name.lower().strip(): name for name in reversed(table.column_names) if name not in columns.values()}
    return next((by_name[name] for name in NAMES[role] if name in by_name), None)


def _looks_like_files(table: pa.Table) -> str | None:
    """The first column most of whose values end like a file of some kind."""
    for name in table.column_names:
        column = table[name]
        if pa.types.is_string(column.type) and len(column):
            values = column.take(spread(len(column), 50)).to_pylist()
            if sum(ends_in(v or "", endings()) for v in values) > len(values) / 2:
                return name
    return None


def _as_strings(table: pa.Table, name: str) -> pa.Table:
    values = [None if v is None else str(v) for v in table[name].to_pylist()]
    return table.set_column(table.column_names.index(name), name, pa.array(values, pa.string()))


def _beside(facts: pa.Table, table: pa.Table) -> pa.Table:
    for name in table.column_names:
        if name not in facts.column_names:
            facts = facts.append_column(name, table[name])
    return facts


def _is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
