"""Features of every sample to a file: by groups of rows, so that what was done is never done twice."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tacit.core.errors import TacitError
from tacit.core.files import read_json, replacing, write_bytes, write_json
from tacit.data.collection import Collection
from tacit.data.loader import Loader
from tacit.data.skipped import MAX_BAD
from tacit.data.spec import Batch
from tacit.data.store import Store
from tacit.evaluation.features import Encode
from tacit.train.folder import write_lines
from tacit.use.embed_files import WRITERS, Rows, columns_of
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
    map: bool = False,
    absolute: bool = False,
    shard: tuple[int, int] = (0, 1),
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
        batch_size: samples per call of `encode`. Part of what decides the last bits of the features.
        store: the decoded samples, where there is a store; otherwise threads decode, at a shorter side of `side`.
        map: add `x` and `y`, a two-dimensional map. Holds all features in memory.
        absolute: write paths as they are; else relative to the folder that all samples have in common, so that the file says
            nothing about the machine it was made on.
        shard: part `k` of `n`, `k` from 0, each a file `NAME-0000k-of-0000n`; their rows follow one another.
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
    batches = -(-len(collection) // batch_size)
    if parts > max(batches, 1):
        raise TacitError(
            f"{parts} parts of {len(collection)} samples in batches of {batch_size}: at most {batches} parts can be made"
        )
    # Whole batches, so that a sample's features do not depend on the number of parts.
    first, last = (batches * k // parts * batch_size for k in (part, part + 1))
    rows = np.arange(first, min(last, len(collection)))
    if parts > 1:
        path = path.with_name(f"{path.stem}-{part:05d}-of-{parts:05d}{path.suffix}")

    plan = {"data": collection.fingerprint, "encoder": fingerprint, "rows": [first, last], "batch": batch_size}
    groups = Groups(path.with_name(path.name + ".parts"), plan, len(rows), batch_size * GROUP_BATCHES)
    loader = Loader(collection, store, rows, batch_size, seed=0, shuffle=False, side=side, max_bad=max_bad)
    resumed = min(groups.done * groups.size, len(rows))
    if resumed and progress:
        progress(resumed, len(rows))
    _fill(groups, encode, loader, collection, progress)

    skipped = groups.skipped()
    ids = groups.ids()
    if not len(ids):
        raise TacitError(f"none of the {len(rows)} samples can be read; `tacit doctor` says why")
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
    if skipped:
        listed = [
            (collection.paths[row] if absolute else str(collection.index.table["path"][row]), why)
            for row, why in skipped.items()
        ]
        write_lines(path.with_name(path.name + ".skipped.tsv"), [("path", "reason"), *listed])
    groups.remove()
    return Embedded(path, found.count, found.width, resumed, skipped)


class Groups:
    """The finished groups of rows on disk, in order: `00000.npz` and so on, each with ids, vectors and what was skipped.

    Args:
        folder: where they lie.
        plan: what is being computed; groups of another plan are thrown away.
        total: rows in all.
        size: rows in a group.
    """

    def __init__(self, folder: Path, plan: dict[str, Any], total: int, size: int) -> None:
        self.folder, self.total, self.size = folder, total, size
        self.count = -(-total // size)
        if folder.exists() and (not (folder / "plan.json").is_file() or read_json(folder / "plan.json") != plan):
            shutil.rmtree(folder)
        write_json(folder / "plan.json", plan)
        self.done = next((number for number in range(self.count) if not self._path(number).is_file()), self.count)

    def add(self, ids: np.ndarray, vectors: np.ndarray, skipped: dict[int, str]) -> None:
        """The next group: int64 `[n]`, float32 `[n, D]`, and the rows that are missing, with reasons."""
        content = io.BytesIO()
        bad, why = np.array(list(skipped), dtype=np.int64), np.array(list(skipped.values()), dtype=np.str_)
        np.savez(content, ids=ids, vectors=vectors, bad=bad, why=why)
        write_bytes(self._path(self.done), content.getvalue())
        self.done += 1

    def ids(self) -> np.ndarray:
        return np.concatenate([np.zeros(0, np.int64), *(part["ids"] for part in self._parts())])

    def vectors(self) -> Iterator[np.ndarray]:
        """float32 `[n, D]` of every group that has any, n of each from 1 to `size`."""
        return (part["vectors"] for part in self._parts() if len(part["ids"]))

    def width(self) -> int:
        return max(part["vectors"].shape[1] for part in self._parts())

    def skipped(self) -> dict[int, str]:
        return {int(row): str(why) for part in self._parts() for row, why in zip(part["bad"], part["why"], strict=True)}

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:05d}.npz"

    def _parts(self) -> Iterator[Any]:
        for number in range(self.count):
            with np.load(self._path(number), allow_pickle=False) as part:
                yield part


def _fill(groups: Groups, encode: Encode, loader: Loader, collection: Collection, progress: Progress | None) -> None:
    """Compute the groups that are missing."""
    if groups.done == groups.count:
        return
    ids: list[np.ndarray] = []
    vectors: list[np.ndarray] = []
    start = groups.done * GROUP_BATCHES
    for step, batch in enumerate(loader.ahead(start, loader.steps_per_epoch), start + 1):
        if len(batch):
            ids.append(batch.ids.cpu().numpy())
            vectors.append(_finite(encode, batch, collection))
        if step % GROUP_BATCHES and step != loader.steps_per_epoch:
            continue
        rows = loader.rows[groups.done * groups.size : (groups.done + 1) * groups.size].tolist()
        skipped = {row: loader.skipped[row] for row in rows if row in loader.skipped}
        width = vectors[0].shape[1] if vectors else 0
        groups.add(
            np.concatenate([*ids, np.zeros(0, np.int64)]), np.concatenate([*vectors, np.zeros((0, width), np.float32)]), skipped
        )
        ids, vectors = [], []
        if progress:
            progress(min(groups.done * groups.size, groups.total), groups.total)


def _finite(encode: Encode, batch: Batch, collection: Collection) -> np.ndarray:
    found = encode(batch).detach().float().cpu().numpy()
    bad = ~np.isfinite(found).all(axis=1)
    if bad.any():
        row = int(batch.ids[int(bad.argmax())])
        raise TacitError(
            f"the features of {int(bad.sum())} sample(s) are not finite, first {collection.paths[row]}; the encoder is broken"
        )
    return found


def _texts(column: Any) -> list[str]:
    return [str(value) for value in (column.to_pylist() if hasattr(column, "to_pylist") else column.tolist())]
