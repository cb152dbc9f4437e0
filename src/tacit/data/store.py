"""Samples decoded once into a memory-mapped array, so that a batch is a gather and the step never waits for a decoder.

A store is a folder: `samples.bin` holds the samples `[C, H, W]` back to back, `journal.jsonl` one line per finished chunk
(rows, bytes, checksum, extents, bad rows), `store.json` says that it is complete. A build that was cut off goes on after its
last whole chunk; one that does not match its checksums is made again.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from tacit.core import files
from tacit.core.errors import Hindered, TacitError
from tacit.data.collection import Collection
from tacit.data.decoder import Decoder
from tacit.data.index import spread
from tacit.data.kinds.kind import shrunk
from tacit.data.payload import Unreadable, memory
from tacit.data.skipped import MAX_BAD, refuse_too_many
from tacit.data.spec import Batch
from tacit.data.window import Part, cut
from tacit.data.workers import in_order, pool

VERSION = 2

CHUNK_BYTES = 32 << 20
CHUNK_ROWS = 1024

VERIFIED_WHOLE = 2 << 30
"""A store of at most so many bytes is checked in full when it is opened; of a larger one, a part."""


class OverBudget(TacitError):
    """Decoded samples take more room than was allowed: they can still be decoded as it goes."""


class Unkept(Hindered):
    """There is no place for decoded samples: they, too, can still be decoded as it goes."""


Progress = Callable[[int, int], None]
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


@dataclass(frozen=True)
class Chunk:
    """What the journal says of some rows that were decoded together."""

    bytes: int
    checksum: int
    sizes: list[list[int]]
    bad: dict[int, str]


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
                _empty(_place(folder, _heading(collection, side)))
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
        chunks = _whole(place, heading)
        if chunks is None:
            _forget_older(Path(folder), place, heading)
            chunks = _make(collection, side, place, heading, budget_bytes, max_bad, progress)
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
            chunks = _whole(place, heading)
    except Unkept:  # where nothing can be written, nothing can be locked
        return None
    return None if chunks is None else Store(place, collection, chunks)


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


def _whole(place: Path, heading: dict) -> list[Chunk] | None:
    """The chunks of a complete and sound store; None, and nothing left of it, where it is not."""
    if not (place / "store.json").exists():
        return None
    try:
        recorded = files.read_json(place / "store.json")
        chunks = list(_journal(place))
        total = sum(c.bytes for c in chunks)
        if (
            recorded == heading
            and sum(len(c.sizes) for c in chunks) == heading["samples"]
            and (place / "samples.bin").stat().st_size == total
            and len(list(_sound(place, chunks, total > VERIFIED_WHOLE))) == len(chunks)
        ):
            return chunks
    except (OSError, TacitError):
        pass
    _empty(place)
    return None


def _journal(place: Path) -> Iterator[Chunk]:
    """The finished chunks, up to the first line that is not whole."""
    if not (place / "journal.jsonl").exists():
        return
    with io.TextIOWrapper(files.opened(place / "journal.jsonl"), errors="replace") as lines:
        for line in lines:
            checksum, _, told = line.rstrip("\n").partition(" ")
            if checksum != f"{zlib.crc32(told.encode()):08x}":
                return
            entry = json.loads(told)
            yield Chunk(entry["bytes"], entry["checksum"], entry["sizes"], {int(r): w for r, w in entry["bad"].items()})


def _line(chunk: Chunk) -> str:
    """A chunk in the journal, behind a checksum of the line."""
    told = json.dumps(asdict(chunk))
    return f"{zlib.crc32(told.encode()):08x} {told}\n"


def _is(path: Path, heading: dict) -> bool:
    try:
        return files.read_json(path) == heading
    except TacitError:
        return False


def _sound(place: Path, chunks: list[Chunk], some: bool) -> Iterator[Chunk]:
    """The chunks up to the first that does not match its checksum; where `some`, only every so many are read."""
    if not (place / "samples.bin").exists():
        return
    every = -(-len(chunks) // 64) if some else 1
    with open(place / "samples.bin", "rb") as file:
        for number, chunk in enumerate(chunks):
            if number % every:
                file.seek(chunk.bytes, os.SEEK_CUR)
            elif zlib.crc32(file.read(chunk.bytes)) != chunk.checksum:
                return
            yield chunk


def _make(
    collection: Collection,
    side: int | None,
    place: Path,
    heading: dict,
    budget: int,
    max_bad: float,
    progress: Progress | None,
) -> list[Chunk]:
    if _is(place / "begun.json", heading):
        chunks = list(_sound(place, list(_journal(place)), some=False))
    else:
        _empty(place)
        chunks = []
        files.write_json(place / "begun.json", heading)
    _cut_back(place, chunks)
    done, size = sum(len(c.sizes) for c in chunks), sum(c.bytes for c in chunks)
    rows_at_once = max(1, min(CHUNK_ROWS, CHUNK_BYTES * len(collection) // max(1, expected_bytes(collection, side))))
    bad = {row: why for c in chunks for row, why in c.bad.items()}
    decode = Decoder(collection)
    with pool() as workers, open(place / "samples.bin", "ab") as samples, open(place / "journal.jsonl", "a") as journal:
        while done < len(collection):
            rows = range(done, min(done + rows_at_once, len(collection)))
            chunk = _decoded(decode, side, rows, workers, samples, budget - size)
            if chunk is None:
                _empty(place)
                raise OverBudget(f"decoded, the samples take more than the {_amount(budget)} allowed for them")
            size += chunk.bytes
            samples.flush()
            journal.write(_line(chunk))
            journal.flush()
            chunks.append(chunk)
            done += len(chunk.sizes)
            bad.update(chunk.bad)
            # What is bad already stays bad: there is no need to read on.
            refuse_too_many(bad, len(collection), collection, max_bad)
            if progress is not None:
                progress(done, len(collection))
        os.fsync(samples.fileno())
        os.fsync(journal.fileno())
    files.write_json(place / "store.json", heading)
    return chunks


def _decoded(
    decode: Decoder, side: int | None, rows: range, workers: ThreadPoolExecutor, samples: BinaryIO, room: int
) -> Chunk | None:
    """Decode these rows and write each as soon as it is there; None where they take more than `room` bytes."""

    def one(row: int) -> np.ndarray | str:
        try:
            return np.ascontiguousarray(np.moveaxis(decode(row, side), -1, 0))
        except Unreadable as problem:
            return str(problem)

    nothing = [0] * len(decode.collection.form.extent)
    sizes, bad, written, checksum = [], {}, 0, 0
    for row, found in zip(rows, in_order(workers, one, rows), strict=True):
        if isinstance(found, str):
            bad[row] = found
            sizes.append(nothing)
            continue
        written += found.nbytes
        if written > room:
            return None
        samples.write(found.data)
        checksum = zlib.crc32(found.data, checksum)
        sizes.append(list(found.shape[1:]))
    return Chunk(written, checksum, sizes, bad)


def _cut_back(place: Path, chunks: list[Chunk]) -> None:
    """Leave these chunks and nothing else in the files of a build that was cut off."""
    files.write_text(place / "journal.jsonl", "".join(map(_line, chunks)))
    with open(place / "samples.bin", "ab") as samples:
        samples.truncate(sum(chunk.bytes for chunk in chunks))


def _empty(place: Path) -> None:
    for name in ("store.json", "begun.json", "journal.jsonl", "samples.bin"):
        (place / name).unlink(missing_ok=True)


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
