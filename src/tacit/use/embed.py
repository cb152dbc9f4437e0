"""Features of every sample to a file: by groups of rows, so that what was done is never done twice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tacit.core.errors import TacitError
from tacit.core.files import locked, replacing
from tacit.data.collection import Collection
from tacit.data.loader import shared
from tacit.data.skipped import MAX_BAD, refuse_too_many
from tacit.data.store import Store
from tacit.data.window import Window
from tacit.evaluation.features import Encode
from tacit.train.folder import write_lines
from tacit.use.cluster import Cluster, on_cluster
from tacit.use.embed_files import WRITERS, Rows, columns_of
from tacit.use.embed_groups import Groups, Work
from tacit.use.maps import layout

GROUP_BATCHES = 16
"""Batches in a group of rows: what a killed run loses at the most."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Embedded:
    """What was written.

    Attributes:
        path: the file.
        rows: how many samples it holds.
        width: D.
        resumed: rows that an earlier, interrupted call had already computed.
        skipped: rows of the collection that could not be read, and why; also in `NAME.skipped.tsv`.
    """

    path: Path
    rows: int
    width: int
    resumed: int = 0
    skipped: dict[int, str] = field(default_factory=dict)


def embed(
    encode: Encode,
    collection: Collection,
    path: str | Path,
    *,
    batch_size: int = 128,
    store: Store | None = None,
    side: int | None = None,
    windows: Mapping[str, Window] | None = None,
    map: bool = False,
    absolute: bool = False,
    shard: tuple[int, int] = (0, 1),
    cluster: Cluster | None = None,
    fingerprint: str = "",
    max_bad: float = MAX_BAD,
    progress: Progress | None = None,
) -> Embedded:
    """Write the features of a collection.

    Groups of rows are kept in `PATH.parts/` until all are there: a call that was killed goes on where it stopped, and the
    finished file is, byte for byte, what it would have been. The file appears at the end, whole.

    Args:
        encode: a batch in, float `[B, D]` out.
        collection: whose samples.
        path: `.parquet` (columns `id`, `path`, the index's own, `embedding`), `.npy` (with `PATH.ids.tsv`) or `.h5`.
        batch_size: samples, or parts of them, that are decoded together. It has a say in the last bits of the features.
        store: the decoded samples, where there is a store; otherwise threads decode, at a shorter side of `side`.
        windows: the parts of samples that features are the mean over, by name; with none, they are of all of a sample.
        map: add `x` and `y`, a two-dimensional map. Holds all features in memory.
        absolute: write whole paths; else relative ones (`Index.names`), so that the file says nothing about this machine.
        shard: part `k` of `n`, `k` from 0, each a file `NAME-0000k-of-0000n`; their rows follow one another.
        cluster: compute on a Ray cluster, with the same result; samples are decoded there, whether there is a store or not.
        fingerprint: says which encoder this is; unfinished work of another is not gone on with.
        max_bad: a larger share of unreadable samples is an error.
        progress: told how many rows are done, and of how many.

    Raises:
        TacitError: unknown ending, more shards than batches, too many unreadable samples, features that are not finite.
    """
    path, (part, parts) = Path(path), shard
    if path.suffix not in WRITERS:
        raise TacitError(f"{path} ends in '{path.suffix}'; features are written to {', '.join(WRITERS)}")
    if not 0 <= part < parts:
        raise TacitError(f"part {part} of {parts} was asked for; parts are counted from 0 to {parts - 1}")
    if map and parts > 1:
        raise TacitError("a map needs all samples at once; make it without shards")
    batch_size = shared(batch_size, windows or {})
    batches = -(-len(collection) // batch_size)
    if parts > max(batches, 1):
        raise TacitError(
            f"{parts} parts of {len(collection)} samples in batches of {batch_size}: at most {batches} parts can be made"
        )
    # Whole batches, so that a sample's features do not depend on the number of parts.
    first, last = (min(batches * k // parts * batch_size, len(collection)) for k in (part, part + 1))
    if parts > 1:
        path = path.with_name(f"{path.stem}-{part:05d}-of-{parts:05d}{path.suffix}")

    work = Work(encode, collection, first, last, batch_size, GROUP_BATCHES, None if cluster else store, side, windows or {})
    seen = {name: str(window) for name, window in work.windows.items()}
    plan = {"data": collection.fingerprint, "encoder": fingerprint, "side": side, "windows": seen}
    parts_folder = path.with_name(path.name + ".parts")
    with locked(parts_folder / "lock", partial(_refuse, path)):
        groups = Groups(parts_folder, plan, work)
        resumed = groups.done
        _fill(groups, cluster, max_bad, progress)
        if groups.empty:
            raise TacitError(f"none of the {last - first} samples can be read; `tacit doctor` says why")
        found = _write(groups, path, map, absolute, fingerprint)
        groups.remove()
    return Embedded(path, found.count, found.width, resumed, dict(sorted(groups.skipped.items())))


def _refuse(path: Path, holder: str) -> None:
    raise TacitError(f"{holder} is writing {path}; wait for it, or choose another --out")


def _write(groups: Groups, path: Path, map: bool, absolute: bool, fingerprint: str) -> Rows:
    """The finished groups as one file, with the lists that belong to it."""
    collection, ids = groups.work.collection, groups.ids()
    found = Rows(columns_of(collection, ids, absolute), groups.vectors, len(ids), groups.width())
    if map:
        arranged = layout(np.concatenate(list(groups.vectors())))
        found.columns["x"], found.columns["y"] = arranged.points[:, 0], arranged.points[:, 1]
    with replacing(path) as file:
        WRITERS[path.suffix](file, found, fingerprint)
    if path.suffix == ".npy":
        names = [name for name in ("id", "path", "x", "y") if name in found.columns]
        write_lines(
            path.with_name(path.name + ".ids.tsv"), [names, *zip(*(_texts(found.columns[name]) for name in names), strict=True)]
        )
    if groups.skipped:
        known = collection.paths if absolute else collection.index.names
        listed = [(known[row], why) for row, why in sorted(groups.skipped.items())]
        write_lines(path.with_name(path.name + ".skipped.tsv"), [("path", "reason"), *listed])
    return found


def _fill(groups: Groups, cluster: Cluster | None, max_bad: float, progress: Progress | None) -> None:
    """Compute the groups that are missing, and refuse too many unreadable samples as soon as they are."""
    work = groups.work
    numbers, rows = list(groups.missing), work.last - work.first

    def tell() -> None:
        refuse_too_many(groups.skipped, rows, work.collection, max_bad)
        if progress and groups.done:
            progress(groups.done, rows)

    tell()
    for number, content in on_cluster(work, numbers, cluster) if cluster and numbers else work(numbers):
        groups.add(number, content)
        tell()


def _texts(column: Any) -> list[str]:
    return [str(value) for value in (column.to_pylist() if hasattr(column, "to_pylist") else column.tolist())]
