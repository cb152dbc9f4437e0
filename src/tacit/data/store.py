"""Samples decoded once into a memory-mapped array, so that a batch is a gather and the step never waits for a decoder.

A store is a folder, with files that `chunks` writes and checks. A build that was cut off goes on after its last whole chunk;
one that does not match its checksums is made again.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from tacit.core import files
from tacit.core.errors import Hindered, TacitError
from tacit.data.chunks import Chunk, Progress, empty, make, whole
from tacit.data.collection import Collection
from tacit.data.index import spread
from tacit.data.kinds.kind import shrunk
from tacit.data.payload import Unreadable, memory
from tacit.data.skipped import MAX_BAD, refuse_too_many
from tacit.data.spec import Batch
from tacit.data.window import Part, cut

VERSION = 2


class OverBudget(TacitError):
    """Decoded samples take more room than was allowed: they can still be decoded as it goes."""


class Unkept(Hindered):
    """There is no place for decoded samples: they, too, can still be decoded as it goes."""


Busy = Callable[[str], None]


class Store:
    """Decoded samples, read by row.

    Attributes:
        folder: where it lies.
        bad: rows that could not be decoded, and why.
        sizes: int32 `[N, len(extent)]`, the extent of every sample; 0 for bad ones.
        fixed: whether all good samples have one extent.
        bytes: how much they take.
    """

    def __init__(self, folder: Path, collection: Collection, chunks: list[Chunk]) -> None:
        self.folder, form = folder, collection.form
        self.bad = {row: why for chunk in chunks for row, why in chunk.bad.items()}
        self.sizes = np.concatenate([np.array(c.sizes, dtype=np.int32).reshape(-1, len(form.extent)) for c in chunks])
        lengths = self.sizes.astype(np.int64).prod(axis=1) * form.channels
        self._starts = np.concatenate([[0], lengths.cumsum()])
        total = int(self._starts[-1])
        self._flat = np.asarray(np.memmap(folder / "samples.bin", form.dtype, "r")) if total else np.zeros(0, form.dtype)
        self.bytes = total * self._flat.itemsize
        self._channels = form.channels
        good = self.sizes[self.sizes[:, 0] > 0]
        self.fixed = len(good) > 0 and bool((good == good[0]).all())
        self._extent = tuple(good[0].tolist()) if self.fixed else ()
        # Bad samples take no room, so the good ones are counted to find a place in the block.
        self._place = np.cumsum(self.sizes[:, 0] > 0) - 1

    def __len__(self) -> int:
        return len(self.sizes)

    def sample(self, row: int) -> np.ndarray:
        """`[C, *extent]`, a view into the file."""
        return self._flat[self._starts[row] : self._starts[row + 1]].reshape(self._channels, *self.sizes[row])

    def batch(self, rows: np.ndarray, parts: Sequence[Part] | None = None) -> Batch:
        """The samples of these rows (good ones), or the parts of them that are wanted, padded where their extents differ."""
        ids = torch.from_numpy(np.ascontiguousarray(rows, dtype=np.int64))
        if parts is not None and len(rows):
            places = [part(self.sizes[row].tolist()) for row, part in zip(rows.tolist(), parts, strict=True)]
            return Batch.padded(ids, [cut(self.sample(row), at, 1) for row, at in zip(rows.tolist(), places, strict=True)])
        if not self.fixed and len(rows):
            return Batch.padded(ids, [self.sample(row) for row in rows.tolist()])
        block = self._flat.reshape(-1, self._channels, *(self._extent or (1,) * self.sizes.shape[1]))
        data = torch.from_numpy(block[self._place[rows]])
        return Batch(ids, data, torch.from_numpy(self.sizes[rows]))


def prepare(
    collection: Collection,
    side: int | None,
    folder: str | os.PathLike[str],
    budget_bytes: int | None,
    max_bad: float = MAX_BAD,
    progress: Progress | None = None,
    busy: Busy = lambda holder: None,
) -> tuple[Store | None, str]:
    """The store where it pays (without a budget: whatever it takes), and why or why not, in words for the log."""
    if budget_bytes is None:
        store = build(collection, side, folder, 1 << 62, max_bad, progress, busy)
    elif (expected := expected_bytes(collection, side)) > budget_bytes:
        return (
            None,
            f"decoded, the samples would take about {_amount(expected)} of {_amount(budget_bytes)}: decoding as it goes",
        )
    else:
        try:
            store = build(collection, side, folder, budget_bytes, max_bad, progress, busy)
        except (OverBudget, Unkept) as problem:
            with suppress(OSError):
                empty(_place(folder, _heading(collection, side)))
            return None, f"{problem}: decoding as it goes"
    shape = "of one size" if store.fixed else "of different sizes"
    return store, f"samples {shape} decoded once into {store.folder} ({_amount(store.bytes)})"


def build(
    collection: Collection,
    side: int | None,
    folder: str | os.PathLike[str],
    budget_bytes: int,
    max_bad: float = MAX_BAD,
    progress: Progress | None = None,
    busy: Busy = lambda holder: None,
) -> Store:
    """Open the store of these samples below `folder`, after making or finishing it where that is due.

    Args:
        collection: the samples.
        side: what they are decoded at.
        folder: where stores are kept; this one lies in a folder of it named by content, side and form.
        budget_bytes: how large it may become.
        max_bad: a larger share of bad samples is a `TacitError`.
        progress: told how many rows of how many are done, now and then.
        busy: told who is making this very store, before its turn is waited for.
    """
    heading = _heading(collection, side)
    place = _place(folder, heading)
    with _alone(place, busy):
        chunks = whole(place, heading)
        if chunks is None:
            _forget_older(Path(folder), place, heading)
            expected = expected_bytes(collection, side)
            chunks = make(collection, side, place, heading, expected, budget_bytes, max_bad, progress)
            if chunks is None:
                raise OverBudget(f"decoded, the samples take more than the {_amount(budget_bytes)} allowed for them")
    store = Store(place, collection, chunks)
    refuse_too_many(store.bad, len(collection), collection, max_bad)
    return store


def finished(collection: Collection, side: int | None, folder: str | os.PathLike[str]) -> Store | None:
    """The store of these samples below `folder` where it has been made already, and is sound."""
    heading = _heading(collection, side)
    place = _place(folder, heading)
    if not (place / "store.json").exists():
        return None
    try:
        with _alone(place):
            chunks = whole(place, heading)
    except Unkept:  # where nothing can be written, nothing can be locked
        return None
    return None if chunks is None else Store(place, collection, chunks)


def begun(collection: Collection, side: int | None, folder: str | os.PathLike[str]) -> bool:
    """Whether the store of these samples lies below `folder`, sound or not."""
    return (_place(folder, _heading(collection, side)) / "store.json").exists()


def expected_bytes(collection: Collection, side: int | None) -> int:
    """About how large the store will be, from the headers of a few samples."""
    extents = []
    for row in spread(len(collection), 64).tolist():
        try:
            extents.append(collection.kind.form(collection.read(row), collection.name(row), collection.limits).extent)
        except Unreadable:
            continue
    pixels = [math.prod(shrunk(collection.kind.name, extent, side)) for extent in extents]
    each = np.dtype(collection.form.dtype).itemsize * collection.form.channels
    return int(np.mean(pixels or [0]) * each * len(collection))


def default_budget(folder: str | os.PathLike[str]) -> int:
    """Half of what is free on the disk, and at most half of the memory there is: beyond that, reading would be random."""
    below = Path(folder).absolute()
    while not below.exists():
        below = below.parent
    return min(shutil.disk_usage(below).free, memory()) // 2


def _place(folder: str | os.PathLike[str], heading: dict) -> Path:
    return Path(folder) / hashlib.blake2b(json.dumps(heading, sort_keys=True).encode(), digest_size=12).hexdigest()


def _heading(collection: Collection, side: int | None) -> dict:
    form = collection.form
    names = "\n".join(collection.index.table["path"].to_pylist())
    return {
        "version": VERSION,
        "kind": collection.kind.name,
        "fingerprint": collection.fingerprint,
        "subject": hashlib.blake2b(f"{collection.index.root}\n{names}".encode(), digest_size=12).hexdigest(),
        "samples": len(collection),
        "side": side,
        "channels": form.channels,
        "dtype": form.dtype,
        "extent": list(form.extent),
        "spacing": list(form.spacing),
        "limits": asdict(collection.limits),
    }


@contextmanager
def _alone(place: Path, busy: Busy = lambda holder: None) -> Iterator[None]:
    """One process at a time, which says what it takes to go on where something cannot be written."""
    try:
        with files.writing(place), files.locked(place / "lock", busy):
            yield
    except files.Unwritable as problem:
        raise Unkept(f"{problem}, or set TACIT_CACHE to another folder") from problem


def _forget_older(folder: Path, place: Path, heading: dict) -> None:
    """Remove stores of the same files at the same size as they were before they changed."""
    for other in folder.glob("*/begun.json"):
        try:
            older = files.read_json(other)
        except TacitError:
            continue
        if other.parent != place and all(older.get(k) == heading[k] for k in ("subject", "side", "kind")):
            shutil.rmtree(other.parent, ignore_errors=True)


def _amount(count: float) -> str:
    """Bytes for a person."""
    power = min(int(math.log10(max(count, 1)) // 3), 4)
    return f"{count / 1000**power:.3g} {('bytes', 'kB', 'MB', 'GB', 'TB')[power]}"
