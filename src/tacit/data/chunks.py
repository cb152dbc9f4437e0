"""The files of a store: what is decoded is written in chunks, so that a build that was cut off goes on after the last one.

`samples.bin` holds the samples `[C, H, W]` back to back, `journal.jsonl` one line per finished chunk (bytes, checksum, extents,
bad rows), behind a checksum of the line. `begun.json` says what a store is made for, `store.json` that it is complete.
"""

from __future__ import annotations

import io
import json
import os
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tacit.core import files
from tacit.core.errors import TacitError
from tacit.data.collection import Collection
from tacit.data.decoder import Decoder
from tacit.data.payload import Unreadable
from tacit.data.skipped import refuse_too_many
from tacit.data.workers import in_order, pool

CHUNK_BYTES = 32 << 20
CHUNK_ROWS = 1024

VERIFIED_WHOLE = 2 << 30
"""A store of at most so many bytes is checked in full when it is opened; of a larger one, a part."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Chunk:
    """What the journal says of some rows that were decoded together."""

    bytes: int
    checksum: int
    sizes: list[list[int]]
    bad: dict[int, str]


def whole(place: Path, heading: dict) -> list[Chunk] | None:
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
    empty(place)
    return None


def make(
    collection: Collection,
    side: int | None,
    place: Path,
    heading: dict,
    expected: int,
    budget: int,
    max_bad: float,
    progress: Progress | None,
) -> list[Chunk] | None:
    """Decode what is not decoded yet; None, and nothing left of it, where the samples take more than `budget` bytes.

    Args:
        heading: what the store is made for; what was begun for another one is made again.
        expected: about how many bytes they take.
    """
    if _is(place / "begun.json", heading):
        chunks = list(_sound(place, list(_journal(place)), some=False))
    else:
        empty(place)
        chunks = []
        files.write_json(place / "begun.json", heading)
    _cut_back(place, chunks)
    done, size = sum(len(c.sizes) for c in chunks), sum(c.bytes for c in chunks)
    rows_at_once = max(1, min(CHUNK_ROWS, CHUNK_BYTES * len(collection) // max(1, expected)))
    bad = {row: why for c in chunks for row, why in c.bad.items()}
    decode = Decoder(collection)
    with pool() as workers, open(place / "samples.bin", "ab") as samples, open(place / "journal.jsonl", "a") as journal:
        while done < len(collection):
            rows = range(done, min(done + rows_at_once, len(collection)))
            chunk = _decoded(decode, side, rows, workers, samples, budget - size)
            if chunk is None:
                empty(place)
                return None
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


def _is(path: Path, heading: dict) -> bool:
    try:
        return files.read_json(path) == heading
    except TacitError:
        return False


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


def _cut_back(place: Path, chunks: list[Chunk]) -> None:
    """Leave these chunks and nothing else in the files of a build that was cut off."""
    files.write_text(place / "journal.jsonl", "".join(map(_line, chunks)))
    with open(place / "samples.bin", "ab") as samples:
        samples.truncate(sum(chunk.bytes for chunk in chunks))


def empty(place: Path) -> None:
    """Leave nothing of a store but its folder and lock."""
    for name in ("store.json", "begun.json", "journal.jsonl", "samples.bin"):
        (place / name).unlink(missing_ok=True)
