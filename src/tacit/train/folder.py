"""The run folder: everything that one pretraining did and learned, under names that are the same for every method."""

from __future__ import annotations

import csv
import fcntl
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import tomli_w

from tacit.core import files
from tacit.core.errors import TacitError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class RunFolder:
    """Paths of a run's artefacts, and how the tables among them are read and written."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.toml"
        self.environment = self.path / "run.json"
        self.metrics = self.path / "metrics.csv"
        self.figures = self.path / "figures.csv"
        self.speed = self.path / "speed.csv"
        self.log = self.path / "log.txt"
        self.skipped = self.path / "skipped.tsv"
        self.checkpoints = self.path / "checkpoints"
        self.last = self.checkpoints / "last.pt"
        self.best = self.checkpoints / "best.pt"
        self.weights = self.path / "encoder.safetensors"
        self.encoder = self.path / "encoder.json"
        self.verdict = self.path / "verdict.json"
        self.evaluations = self.path / "evaluations"
        self.pictures = self.path / "pictures"
        self.report = self.path / "report.html"
        self._lock: IO[str] | None = None

    @classmethod
    def existing(cls, path: str | Path) -> RunFolder:
        """The folder of a run; a `TacitError` where there is none."""
        folder = cls(path)
        if not folder.config.is_file():
            raise TacitError(f"{path} is not a run folder (no config.toml in it); give a folder that `tacit pretrain` made")
        return folder

    @classmethod
    def unused(cls, out: str | Path | None, method: str, data: str) -> RunFolder:
        """A folder that holds no run yet: `out`, or the next free `runs/METHOD-DATA-N`."""
        if out is not None:
            folder = cls(out)
            if folder.config.exists():
                state = "a finished" if folder.finished else "an unfinished"
                mend = "choose another --out" if folder.finished else f"`tacit resume {out}` goes on with it"
                raise TacitError(f"{out} already holds {state} run; {mend}")
            if folder.path.exists() and (not folder.path.is_dir() or any(folder.path.iterdir())):
                raise TacitError(f"{out} exists and is not an empty folder; choose another --out")
            return folder
        stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", f"{method}-{data}").strip("-.")[:80]
        number = 1
        while (candidate := Path("runs") / f"{stem}-{number}").exists():
            number += 1
        return cls(candidate)

    @property
    def finished(self) -> bool:
        """Whether training came to its end: the final encoder is written last."""
        return self.encoder.is_file()

    def lock(self) -> None:
        """Keep other processes from training in this folder until this one ends, however it ends."""
        self.path.mkdir(parents=True, exist_ok=True)
        handle = open(self.path / ".lock", "w")  # noqa: SIM115 - held for the life of the process
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise TacitError(f"another process is at work in {self.path}; wait for it, or choose another --out") from None
        self._lock = handle

    def unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def read_config(self) -> dict[str, Any]:
        try:
            return tomllib.loads(self.config.read_text())
        except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
            raise TacitError(f"cannot read {self.config} ({problem}); restore it or start a new run") from problem

    def write_config(self, values: dict[str, Any]) -> None:
        files.write_text(self.config, tomli_w.dumps(values))


class Table:
    """A CSV file that grows by rows, and can be cut back to where a checkpoint left it.

    Columns are fixed by the first row. Floats are written with 9 significant digits: enough to name every float32.
    """

    def __init__(self, path: Path, length: int = 0) -> None:
        """Go on after `length` bytes; what lies behind them was written after the checkpoint and is cut off."""
        self.path = path
        self._columns: list[str] = []
        if length:
            with open(path, "r+b") as file:
                file.truncate(length)
            with open(path, newline="") as file:
                self._columns = next(csv.reader(file))
        else:
            path.unlink(missing_ok=True)
        self._file = open(path, "a", newline="")  # noqa: SIM115 - closed by close()
        self._writer = csv.writer(self._file, lineterminator="\n")

    def add(self, row: dict[str, float | int | None]) -> None:
        if not self._columns:
            self._columns = list(row)
            self._writer.writerow(self._columns)
        self._writer.writerow([_text(row.get(column)) for column in self._columns])

    def flush(self) -> int:
        """Hand everything to the system; the length in bytes."""
        self._file.flush()
        return self._file.tell()

    def close(self) -> None:
        self._file.close()


def read_table(path: Path) -> dict[str, list[float | None]]:
    """The columns of a table of numbers; empty cells are None. A last row that was cut short is left out."""
    if not path.is_file():
        return {}
    with open(path, newline="") as file:
        rows = list(csv.reader(file))
    if not rows:
        return {}
    columns: dict[str, list[float | None]] = {name: [] for name in rows[0]}
    for row in rows[1:]:
        if len(row) == len(columns):
            for name, cell in zip(columns, row, strict=True):
                columns[name].append(float(cell) if cell else None)
    return columns


def write_lines(path: Path, rows: Sequence[Sequence[str]]) -> None:
    """A tab-separated file; tabs and new lines within a cell are escaped."""
    files.write_text(path, "".join("\t".join(_cell(cell) for cell in row) + "\n" for row in rows))


def _text(value: float | int | None) -> str:
    if value is None:
        return ""
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def _cell(text: str) -> str:
    return text.encode("unicode_escape").decode("ascii") if any(c in text for c in "\t\n\r\\") else text
