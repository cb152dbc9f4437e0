"""What a run writes down while it goes on: metrics by step, figures by check, speed by interval."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from tacit.train.events import Events
from tacit.train.folder import RunFolder, Table
from tacit.train.loggers import Sink
from tacit.train.machine import memory_megabytes

PHASES = ("waiting", "views", "forward", "backward", "optimiser")


class Clock:
    """Seconds by phase since the last `lap`. Phases are host time: on a GPU they show where the host waits."""

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.samples = 0
        self.spent: dict[str, float] = dict.fromkeys(PHASES, 0.0)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.spent[name] += time.perf_counter() - start

    def lap(self) -> dict[str, float]:
        """Seconds, samples per second and the share of every phase; starts the next interval."""
        seconds = max(time.perf_counter() - self.start, 1e-9)
        row = {"seconds": seconds, "samples_per_second": self.samples / seconds}
        row |= {f"share_{name}": spent / seconds for name, spent in self.spent.items()}
        self.__init__()
        return row


class Record:
    """The tables of a run and its TensorBoard events. Metrics and figures hold no times, so that equal runs are equal."""

    def __init__(self, folder: RunFolder, lengths: dict[str, int], step: int, sink: Sink | None = None) -> None:
        """Go on at `step` where tables had these `lengths` (bytes); an empty dictionary starts afresh."""
        self._sink = sink
        self.metrics = Table(folder.metrics, lengths.get("metrics", 0))
        self.figures = Table(folder.figures, lengths.get("figures", 0))
        self.speed = Table(folder.speed, lengths.get("speed", 0))
        self._events = Events(folder.path / "events", step)

    def metric(self, row: dict[str, float | int | None]) -> None:
        self.metrics.add(row)
        self._scalars("train", row)

    def figure(self, row: dict[str, float | int | None]) -> None:
        self.figures.add(row)
        self._scalars("figures", row)

    def lap(self, step: int, clock: Clock, device: torch.device) -> dict[str, float]:
        row = clock.lap() | {"memory_mb": memory_megabytes(device)}
        self.speed.add({"step": step, **row})
        self._scalars("speed", {"step": step, **row})
        return row

    def flush(self) -> dict[str, int]:
        """Put everything on the disk; the tables' lengths, for a checkpoint."""
        self._events.flush()
        return {"metrics": self.metrics.flush(), "figures": self.figures.flush(), "speed": self.speed.flush()}

    def close(self) -> None:
        """Close everything, even where the disk is full and the last rows are lost."""
        with ExitStack() as all_of:
            for file in (self._sink, self._events, self.speed, self.figures, self.metrics):
                if file is not None:
                    all_of.callback(file.close)

    def _scalars(self, group: str, row: dict[str, float | int | None]) -> None:
        step = int(row["step"] or 0)
        figures = {f"{group}/{name}": v for name, v in row.items() if name not in ("step", "epoch") and v is not None}
        self._events.add(figures, step)
        if self._sink is not None:
            self._sink.log(figures, step)


class NoRecord(Record):
    """What the other ranks write: nothing."""

    def __init__(self) -> None:
        pass

    def metric(self, row: dict[str, float | int | None]) -> None:
        pass

    def figure(self, row: dict[str, float | int | None]) -> None:
        pass

    def lap(self, step: int, clock: Clock, device: torch.device) -> dict[str, float]:  # noqa: ARG002
        return clock.lap() | {"memory_mb": memory_megabytes(device)}

    def flush(self) -> dict[str, int]:
        return {}

    def close(self) -> None:
        pass
