"""From whatever a person points at to a collection of samples, and to what those samples look like."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from tacit.core.errors import TacitError
from tacit.data.collection import Collection
from tacit.data.index import Index, spread
from tacit.data.kinds.kind import Form, Kind, as_taken, choose, kind_named, recognised
from tacit.data.measure import measure
from tacit.data.payload import Limits, Payload, Unreadable
from tacit.data.rows import Rows
from tacit.data.sources.find import source_of
from tacit.data.sources.folder import SPLITS
from tacit.data.sources.source import Read, Source

__all__ = ["measure", "open_as", "open_data"]

LOOKED_AT = 256
"""So many headers are read to agree on channels and depth; fewer where each is a request over a network."""

LOOKED_AT_REMOTELY = 16


def open_data(
    data: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | Any,
    *,
    kind: str | None = None,
    split: str | None = None,
    columns: Mapping[str, str] | None = None,
    limits: Limits = Limits(),  # noqa: B008 - a frozen value
) -> Collection:
    """Understand `data` and list its samples. Nothing is decoded but a few headers, and labels are never asked for.

    Args:
        data: a folder, a file (manifest, list, `.npz`, `.tar`), a URL that fsspec opens, shards in brace notation, a saved
            Hugging Face data set, `sample:NAME`, a list of paths, or a torch `Dataset`.
        kind: the kind of data, where it should not be sniffed.
        split: only this split (`train`, `val`, `test`, or as the data calls it).
        columns: which columns of a manifest to use: `{"path": "file_name", "label": "diagnosis"}`.
        limits: how many pixels and bytes a single sample may have.

    Raises:
        TacitError: there is nothing there, or nothing that can be understood.
    """
    source = source_of(data, kind, columns)
    count = len(source.table)
    if not count:
        raise TacitError(f"{source.what} has no samples: {source.root or data}")
    chosen, why = _kind(source, kind, limits)
    limits = replace(limits, whole=not chosen.seeks)
    source = _gathered(source, chosen, limits)
    count = len(source.table)
    form = _form(source, chosen, limits)
    collection = Collection(
        chosen,
        Index(source.table, source.root),
        f"{count:,} sample{'s'[: count != 1]} of kind '{chosen.name}' from {source.what}, because {why}",
        form,
        Rows(count),
        source.read,
        limits,
        source.late_labels,
        fetch_mask=source.read_mask,
    )
    return collection if split is None else collection.select(SPLITS.get(split.lower(), split))


def open_as(
    data: Any,
    kinds: Sequence[str],
    kind: str | None = None,
    split: str | None = None,
    columns: Mapping[str, str] | None = None,
    anyhow: bool = False,
) -> Collection:
    """The data as one of these kinds, where it can be read so and nobody says which it is; else as what it looks like.

    Args:
        data, kind, split, columns: see `open_data`.
        kinds: that are wanted: pictures are pairs to what takes pairs.
        anyhow: try the first of them whatever the data looks like.
    """
    collection = open_data(data, kind=kind, split=split, columns=columns)
    found = collection.kind.name
    wanted = kinds[0] if anyhow else as_taken(found, kinds)
    if kind is not None or wanted == found:
        return collection
    try:
        return open_data(data, kind=wanted, split=split, columns=columns)
    except TacitError:  # it cannot
        return collection


def _kind(source: Source, kind: str | None, limits: Limits) -> tuple[Kind, str]:
    if source.kind is not None:
        return source.kind, source.why
    if kind is not None:
        return kind_named(kind), "this kind was given"
    rows = [int(row) for row in spread(len(source.table), 1000)]
    named = {row: name for row, name in zip(rows, source.table["path"].take(rows).to_pylist(), strict=True) if name}
    names, there = list(named.values()), list(named)
    # A list names its samples: files are not looked for beside them, unless the kind is given.
    chosen, why = recognised(names, lambda place, limits: source.read(there[place], replace(limits, whole=True)))
    # Where names say nothing, the first samples do; the very first may be a broken one.
    for row in spread(len(source.table), LOOKED_AT_REMOTELY).tolist() if chosen is None else ():
        try:
            chosen, why = choose(names, source.read(row, limits))
        except Unreadable as problem:
            why = str(problem)
        if chosen is not None:
            break
    if chosen is None:
        raise TacitError(f"no kind of data recognises {source.what}: {why}; name the kind with --kind")
    return chosen, why


def _gathered(source: Source, kind: Kind, limits: Limits) -> Source:
    """The source with one row for each sample, where files on this machine are parts of samples; the first stands for all."""
    payloads = (_tried(source, row, limits) for row in spread(len(source.table), LOOKED_AT_REMOTELY).tolist())
    first = None if kind.gather is None else next((payload for payload in payloads if payload is not None), None)
    if kind.gather is None or not isinstance(first, Path):
        return source
    table = source.table
    samples = kind.gather([name or "" for name in table["path"].to_pylist()], first)
    members: dict[str, list[int]] = {}
    for row, sample in enumerate(samples):
        if sample is not None:
            members.setdefault(sample, []).append(row)
    if len(members) == len(table):
        return source
    if not members:
        raise TacitError(
            f"{source.what} has no samples of the kind '{kind.name}': `tacit doctor` without --kind says what it has"
        )
    beside = sum(sample is None for sample in samples)
    what = f"{source.what}, of {len(table) - beside:,} files" + (f" ({beside:,} beside them left out)" if beside else "")
    rows = [files[0] for files in members.values()]
    merged = table.take(rows)
    for column, of_all in (("size", sum), ("mtime", max)):
        if column in table.column_names:
            values = table[column].to_pylist()
            known = [of_all(values[row] or 0 for row in files) for files in members.values()]
            merged = merged.set_column(merged.column_names.index(column), column, pa.array(known, pa.int64()))
    if source.kind is not None and "label" in table.column_names:
        # A folder for each sample, or for each part of one, is no class.
        labels = table["label"].to_pylist()
        mixed = any(len({labels[row] for row in files}) > 1 for files in members.values())
        if mixed or len({labels[row] for row in rows}) == len(rows):
            merged, what = merged.drop_columns("label"), what.replace(source.what, source.what.partition(",")[0])

    def moved(read: Read) -> Read:
        return lambda row, limits: read(rows[row], limits)

    mask = source.read_mask and moved(source.read_mask)
    return replace(source, table=merged, read=moved(source.read), what=what, read_mask=mask)


def _tried(source: Source, row: int, limits: Limits) -> Payload | None:
    try:
        return source.read(row, limits)
    except Unreadable:
        return None


def _form(source: Source, kind: Kind, limits: Limits) -> Form:
    forms: list[Form] = []
    problem = ""
    remote = "://" in source.root
    for row in spread(len(source.table), LOOKED_AT_REMOTELY if remote else LOOKED_AT):
        name = source.table["path"][int(row)].as_py() or ""
        try:
            forms.append(kind.form(source.read(int(row), limits), name, limits))
        except Unreadable as found:
            problem = problem or f"{name}: {found}"
    if not forms:
        raise TacitError(
            f"not one sample of {source.what} can be read as '{kind.name}', such as {problem}; name another kind with --kind"
        )
    return kind.agree(forms)
