"""Batches as a function of the step: no history, so resuming costs nothing and the world size does not matter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from itertools import chain

import numpy as np
import torch

from tacit.core.draws import Draws, Order
from tacit.core.errors import TacitError
from tacit.data.collection import Collection
from tacit.data.decoder import Decoder
from tacit.data.payload import Unreadable
from tacit.data.rows import Rows
from tacit.data.skipped import MAX_BAD, refuse_too_many
from tacit.data.spec import Batch
from tacit.data.store import Store
from tacit.data.window import Part, Window
from tacit.data.workers import in_order, pool

AHEAD = 3
"""How many batches are made before they are asked for."""

STAND_INS = 64

BLOCK = 16384
"""So many places of an order are computed at once: for a few alone, it would be nearly as much work."""

WHOLE = ""
PARTNER = "partner"


class Loader:
    """Batches of some rows of a collection.

    Args:
        collection: the samples.
        store: their decoded form; without one, threads decode while the step runs.
        rows: int64, the rows of the collection to serve; None for all.
        batch_size: samples per step over all ranks together; every rank gets its part of the same batch, in rank order.
        seed: the run's seed: of the order, and of what stands in for a bad sample.
        rank, world: which part of every batch is this process's.
        shuffle: serve a new order each epoch, dropping its last incomplete batch, with another sample in place of a bad
            one. Else serve each row once, in order, and leave bad ones out.
        side: what samples are decoded at where there is no store.
        windows: which parts of samples are wanted, by the view that wants them; with none, samples come whole.
        partners: beside each sample another one, drawn, as the part `PARTNER` of the batch.
        max_bad: a larger share of bad samples than this stops the run.

    Attributes:
        steps_per_epoch: how many batches one pass has.
        skipped: bad rows found so far, and why; all of them from the start where there is a store.
    """

    def __init__(
        self,
        collection: Collection,
        store: Store | None,
        rows: Sequence[int] | np.ndarray | Rows | None,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        shuffle: bool = True,
        side: int | None = None,
        max_bad: float = MAX_BAD,
        windows: Mapping[str, Window] | None = None,
        partners: bool = False,
    ) -> None:
        self.collection, self.store, self.seed, self.side = collection, store, seed, side
        rows = Rows(len(collection)) if rows is None else rows
        self.rows = rows if isinstance(rows, Rows) else np.asarray(rows, dtype=np.int64)
        self.batch_size, self.rank, self.world, self.shuffle, self.max_bad = batch_size, rank, world, shuffle, max_bad
        self.skipped: dict[int, str] = {}
        self._windows, self._partners = dict(windows or {}), partners
        if shuffle and batch_size % world:
            raise TacitError(
                f"a batch of {batch_size} cannot be shared evenly by {world} processes; give a multiple of {world}"
            )
        if shuffle and len(self.rows) < batch_size:
            raise TacitError(
                f"{len(self.rows)} samples are fewer than one batch of {batch_size}; give a smaller --batch or more data"
            )
        self.steps_per_epoch = len(self.rows) // batch_size if shuffle else -(-len(self.rows) // batch_size)
        if store is not None:
            here = set(np.asarray(self.rows).tolist())
            self.skipped = {row: why for row, why in store.bad.items() if row in here}
            refuse_too_many(self.skipped, len(self.rows), collection, max_bad)
        self._workers = None if store is not None else pool()
        self._decode = Decoder(collection)
        self._block = lru_cache(maxsize=4)(self._ordered)

    def batch(self, step: int) -> Batch:
        """This rank's part of the batch of a step: a pure function of the step.

        `ids` are the rows that are really shown: where another sample stands in for a bad one, its own. Without
        shuffling, bad rows are missing.
        """
        epoch, within = divmod(step, self.steps_per_epoch)
        start = within * self.batch_size
        stop = min(start + self.batch_size, len(self.rows))
        first, last = (start + (stop - start) * part // self.world for part in (self.rank, self.rank + 1))
        rows = self.rows[self._positions(epoch, first, last) if self.shuffle else np.arange(first, last)]
        found = self._read(rows, epoch)
        if self._partners:
            found = replace(found, parts=found.parts | {PARTNER: self._read(self._others(found.ids, epoch), epoch)})
        return replace(found, extra=self.collection.extra(Draws(self.seed, epoch, found.ids)))

    def __iter__(self) -> Iterator[Batch]:
        """One pass: the batches of the first epoch, those with nothing for this rank left out."""
        yield from (batch for batch in self.ahead(0, self.steps_per_epoch) if len(batch))

    def ahead(self, start: int, stop: int, pin: bool = False) -> Iterator[Batch]:
        """The batches of steps `start` to `stop`, in order, made in the background a few at a time.

        Args:
            start, stop: steps, the last one excluded.
            pin: put them into page-locked memory, from where a GPU fetches them while it computes.
        """

        def make(step: int) -> Batch:
            batch = self.batch(step)
            if pin:
                batch = batch.each(torch.Tensor.pin_memory)
            return batch

        with pool(1) as background:
            yield from in_order(background, make, range(start, stop), ahead=AHEAD)

    def _positions(self, epoch: int, first: int, last: int) -> np.ndarray:
        """What the epoch's order has from place `first` to `last`."""
        blocks = [self._block(epoch, number) for number in range(first // BLOCK, -(-last // BLOCK))]
        return np.concatenate(blocks)[first % BLOCK :][: last - first] if blocks else np.arange(0)

    def _ordered(self, epoch: int, number: int) -> np.ndarray:
        places = torch.arange(number * BLOCK, min((number + 1) * BLOCK, len(self.rows)))
        return Order(self.seed, epoch, len(self.rows))(places).numpy()

    def _read(self, rows: np.ndarray, epoch: int) -> Batch:
        return self._decoded(rows, epoch) if self.store is None else self._stored(self.store, rows, epoch)

    def _others(self, ids: torch.Tensor, epoch: int) -> np.ndarray:
        """Another row for each: a draw of (seed, epoch, row), so that it does not matter what else is in the batch."""
        first, second = self.rows[Draws(self.seed, epoch, ids).integers("partner", 0, len(self.rows), 2).numpy()].T
        return np.where(first == ids.numpy(), second, first)

    def _stored(self, store: Store, rows: np.ndarray, epoch: int) -> Batch:
        if self.skipped:
            kept = [self._standing_in(row) if row in self.skipped else row for row in rows.tolist()]
            rows = np.array([row for row in kept if row is not None], dtype=np.int64)
        if not self._windows:
            return store.batch(rows)
        wanted = self._wanted(rows, epoch)
        return _of_parts({name: store.batch(rows, [parts[name] for parts in wanted]) for name in self._windows})

    def _wanted(self, rows: np.ndarray, epoch: int) -> list[dict[str, Part]]:
        """What is wanted of these samples, by view: a draw of (seed, epoch, row, view)."""
        draws = Draws(self.seed, epoch, torch.from_numpy(np.ascontiguousarray(rows, dtype=np.int64)))
        drawn = {
            name: draws.within(name).uniform("window", w.drawn).tolist() if w.drawn else [()] * len(rows)
            for name, w in self._windows.items()
        }
        return [
            {name: partial(_part, window, drawn[name][place]) for name, window in self._windows.items()}
            for place in range(len(rows))
        ]

    def _standing_in(self, row: int) -> int | None:
        if not self.shuffle:
            return None
        return next((other for other in self._stand_ins(row) if other not in self.skipped), None)

    def _stand_ins(self, row: int) -> Iterator[int]:
        """Rows to show in place of a bad one, by a draw of (seed, row): the same on every rank and after resuming."""
        drawn = Draws(self.seed, 0, torch.tensor([row])).integers("stand-in", 0, len(self.rows), STAND_INS)
        yield from self.rows[drawn[0].numpy()].tolist()
        yield from (int(self.rows[place]) for place in range(len(self.rows)))

    def _decoded(self, rows: np.ndarray, epoch: int) -> Batch:
        assert self._workers is not None
        wanted = self._wanted(rows, epoch) if self._windows else [{WHOLE: None}] * len(rows)
        asked = zip(rows.tolist(), wanted, strict=True)
        shown = in_order(self._workers, lambda one: self._shown(*one, epoch), asked)
        found = [pair for pair in shown if pair is not None]
        refuse_too_many(self.skipped, len(self.rows), self.collection, self.max_bad)
        if not found:
            form = self.collection.form
            nothing = torch.zeros(0, form.channels, *(1 for _ in form.extent), dtype=getattr(torch, form.dtype))
            return Batch(torch.zeros(0, dtype=torch.int64), nothing, torch.zeros(0, len(form.extent), dtype=torch.int32))
        ids = torch.tensor([row for row, _ in found])

        def padded(name: str) -> Batch:
            return Batch.padded(ids, [np.moveaxis(shown[name], -1, 0) for _, shown in found])

        return _of_parts({name: padded(name) for name in self._windows}) if self._windows else padded(WHOLE)

    def _shown(self, row: int, wanted: Mapping[str, Part | None], epoch: int) -> tuple[int, dict[str, np.ndarray]] | None:
        """The row that is really shown, and what of it, by view; what is `wanted` is so of this row."""
        for candidate in chain([row], self._stand_ins(row) if self.shuffle else ()):
            if candidate in self.skipped:
                continue
            try:
                if self._windows and candidate != row:
                    (wanted,) = self._wanted(np.array([candidate]), epoch)
                return candidate, {name: self._decode(candidate, self.side, part) for name, part in wanted.items()}
            except Unreadable as problem:
                self.skipped[candidate] = str(problem)
        return None


def whole_or(window: Window | None) -> dict[str, Window]:
    """One window for whatever looks at a batch; none where samples come whole."""
    return {} if window is None else {WHOLE: window}


def shared(batch: int, windows: Mapping[str, Window]) -> int:
    """How many samples a batch has where each comes in these parts, and all of them are to be no more than `batch`."""
    return -(-batch // max(1, len(windows)))


def _part(window: Window, drawn: Sequence[float], extent: Sequence[int]) -> tuple[np.ndarray, ...]:
    return window(extent, drawn)


def _of_parts(parts: dict[str, Batch]) -> Batch:
    first = next(iter(parts.values()))
    return Batch(first.ids, first.data, first.sizes, first.extra, parts)
