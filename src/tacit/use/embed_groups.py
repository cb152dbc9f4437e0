"""Groups of rows, the unit of embedding: computed here or in any other process, and kept on disk until all are there."""

from __future__ import annotations

import io
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from tacit.core.errors import TacitError
from tacit.core.files import read_json, write_bytes, write_json
from tacit.data.collection import Collection
from tacit.data.loader import AHEAD, Loader
from tacit.data.spec import Batch
from tacit.data.store import Store
from tacit.data.window import Window
from tacit.data.workers import in_order, pool
from tacit.evaluation.features import Encode, features_of


@dataclass(frozen=True)
class Work:
    """Which rows are embedded and how: all that it takes to compute any group of them.

    Attributes:
        encode: a batch in, float `[B, D]` out.
        collection: whose samples.
        first, last: the rows, the last one excluded.
        batch_size: samples per call of `encode`.
        batches: in a group.
        store: the decoded samples, where there is a store; otherwise threads decode.
        side: what samples are decoded at.
        windows: the parts of samples that features are the mean over, by name; with none, they are of all of a sample.
    """

    encode: Encode
    collection: Collection
    first: int
    last: int
    batch_size: int
    batches: int
    store: Store | None = None
    side: int | None = None
    windows: Mapping[str, Window] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Rows in a group."""
        return self.batch_size * self.batches

    def rows(self, number: int) -> range:
        """The rows of a group."""
        start = self.first + number * self.size
        return range(start, min(start + self.size, self.last))

    def __call__(self, numbers: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        """The groups of these numbers, one after the other, each as the content of its file.

        A group is the same bytes whoever computes it and beside whatever others: its batches are always the same ones.
        """
        loader = Loader(
            self.collection, self.store, np.arange(self.first, self.last), self.batch_size, seed=0,
            shuffle=False, side=self.side, max_bad=1.0, windows=self.windows,
        )  # fmt: skip
        steps = [range(n * self.batches, min((n + 1) * self.batches, loader.steps_per_epoch)) for n in numbers]
        with pool(1) as background:
            # One pipeline through all of them: no group waits for the first batch of its own.
            batches = in_order(background, loader.batch, (step for group in steps for step in group), ahead=AHEAD)
            for number, group in zip(numbers, steps, strict=True):
                found = [(batch.ids.numpy(), self._encoded(batch)) for batch in islice(batches, len(group)) if len(batch)]
                skipped = {row: loader.skipped[row] for row in self.rows(number) if row in loader.skipped}
                yield number, _content(found, skipped)

    def _encoded(self, batch: Batch) -> np.ndarray:
        found = features_of(self.encode, batch).cpu().numpy()
        bad = ~np.isfinite(found).all(axis=1)
        if bad.any():
            path = self.collection.index.path(int(batch.ids[int(bad.argmax())]))
            raise TacitError(f"the features of {int(bad.sum())} sample(s) are not finite, first {path}; the encoder is broken")
        return found


def _content(found: Sequence[tuple[np.ndarray, np.ndarray]], skipped: dict[int, str]) -> bytes:
    """An `.npz` with ids int64 `[n]`, vectors float32 `[n, D]`, and the rows that are missing, with reasons."""
    content = io.BytesIO()
    ids = np.concatenate([np.zeros(0, np.int64), *(ids for ids, _ in found)])
    vectors = np.concatenate([vectors for _, vectors in found]) if found else np.zeros((0, 0), np.float32)
    bad, why = np.array(list(skipped), dtype=np.int64), np.array(list(skipped.values()), dtype=np.str_)
    np.savez(content, ids=ids, vectors=vectors, bad=bad, why=why)
    return content.getvalue()


class Groups:
    """The finished groups on disk, `00000.npz` and so on.

    Args:
        folder: where they lie.
        plan: what is computed, of what and how; groups of another plan, or of other rows, are thrown away.
        work: which rows, and how they are grouped.

    Attributes:
        missing: numbers of the groups that are still to be computed, rising.
        skipped: rows that could not be read, as far as that is known, and why.
    """

    def __init__(self, folder: Path, plan: dict[str, Any], work: Work) -> None:
        self.folder, self.work = folder, work
        self.count = -(-(work.last - work.first) // work.size)
        plan = plan | {"rows": [work.first, work.last], "batch": work.batch_size, "group": work.size}
        if folder.exists() and _plan(folder) != plan:
            for old in folder.glob("*.npz"):
                old.unlink()
        write_json(folder / "plan.json", plan)
        self.missing: list[int] = []
        self.skipped: dict[int, str] = {}
        for number in range(self.count):
            if (skipped := _skipped(self._path(number))) is None:
                self.missing.append(number)
            else:
                self.skipped |= skipped

    @property
    def done(self) -> int:
        """How many rows are behind."""
        return self.work.last - self.work.first - sum(len(self.work.rows(number)) for number in self.missing)

    def add(self, number: int, content: bytes) -> None:
        """A group that was missing, as `Work` gives it."""
        write_bytes(self._path(number), content)
        self.missing.remove(number)
        self.skipped |= _skipped(io.BytesIO(content)) or {}

    @property
    def empty(self) -> bool:
        """Whether none of the rows can be read."""
        return len(self.skipped) == self.work.last - self.work.first

    def ids(self) -> np.ndarray:
        return np.concatenate([np.zeros(0, np.int64), *(part["ids"] for part in self._parts())])

    def vectors(self) -> Iterator[np.ndarray]:
        """float32 `[n, D]` of every group that has any, n of each from 1 to `work.size`."""
        return (part["vectors"] for part in self._parts() if len(part["ids"]))

    def width(self) -> int:
        return max(part["vectors"].shape[1] for part in self._parts())

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:05d}.npz"

    def _parts(self) -> Iterator[Any]:
        for number in range(self.count):
            with np.load(self._path(number), allow_pickle=False) as part:
                yield part


def _plan(folder: Path) -> Any:
    try:
        return read_json(folder / "plan.json")
    except TacitError:
        return None


def _skipped(group: Path | io.BytesIO) -> dict[int, str] | None:
    """What a group says of its missing rows; None where it is not there, or damaged."""
    try:
        with np.load(group, allow_pickle=False) as part:
            if len(part["ids"]) == len(part["vectors"]):  # Reading them checks their checksums.
                return {int(row): str(why) for row, why in zip(part["bad"], part["why"], strict=True)}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        pass
    return None
