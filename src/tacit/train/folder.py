"""The run folder: everything that one pretraining did and learned, under names that are the same for every method."""

from __future__ import annotations

import csv
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w

from tacit.core import files, signals
from tacit.core.errors import Hindered, TacitError
from tacit.train.config import Whole, validated

if TYPE_CHECKING:
    from tacit.train.plan import Plan

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


LOCK = ".lock"
TOKENIZER = "tokenizer.json"
NEEDS = "needs"
"""Where runs lie that are trained first, because this one needs them."""


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
        self.tokenizer = self.path / TOKENIZER
        self.skipped = self.path / "skipped.tsv"
        self.checkpoints = self.path / "checkpoints"
        self.last = self.checkpoints / "last.pt"
        self.best = self.checkpoints / "best.pt"
        self.weights = self.path / "encoder.safetensors"
        self.encoder = self.path / "encoder.json"
        self.reader = self.path / "reader.json"
        self.reader_weights = self.path / "reader.safetensors"
        self.verdict = self.path / "verdict.json"
        self.evaluations = self.path / "evaluations"
        self.pictures = self.path / "pictures"
        self.report = self.path / "report.html"

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
            if folder.path.exists() and not (folder.path.is_dir() and all(map(_left_over, os.listdir(folder.path)))):
                raise TacitError(f"{out} exists and is not an empty folder; choose another --out")
            return folder
        stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", f"{method}-{data}").strip("-.")[:80]
        number = 1
        while (candidate := Path("runs") / f"{stem}-{number}").exists():
            number += 1
        return cls(candidate)

    @classmethod
    def begun(cls, out: str | Path | None, method: str, data: str, plan: Plan, environment: dict[str, Any]) -> RunFolder:
        """A folder with the plan of a new run in it. Two processes never begin theirs in the same one."""
        folder = cls.unused(out, method, data)
        try:
            with files.writing(folder.path):
                folder.path.mkdir(parents=True, exist_ok=out is not None)
        except files.Unwritable:
            if out is None and folder.path.is_dir():  # another process was quicker
                return cls.begun(out, method, data, plan, environment)
            raise
        with folder.locked():
            if out is not None:
                cls.unused(out, method, data)
            folder._write(plan, environment)
        return folder

    def _write(self, plan: Plan, environment: dict[str, Any]) -> None:
        """What a run begins with; `config.toml` comes last, and says that all is there."""
        for name, need in plan.needs.items():
            inner = RunFolder(self.path / NEEDS / name)
            inner.path.mkdir(parents=True, exist_ok=True)
            inner._write(need, environment)
        files.write_json(self.environment, environment)
        if plan.words is not None:
            plan.words.tokenizer.save(self.tokenizer)
        self.write_config(plan.config)

    @property
    def finished(self) -> bool:
        """Whether training came to its end: the final encoder is written last."""
        return self.encoder.is_file()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from training in this folder."""

        def refuse(holder: str) -> None:
            raise TacitError(f"{holder} is at work in {self.path}; wait for it, or choose another --out")

        with files.locked(self.path / LOCK, refuse):
            yield

    @contextmanager
    def at_work(self, first: bool) -> Iterator[None]:
        """Train here, as the first process or as one of its others; what ends that from outside says how it goes on."""
        go_on = f"`tacit resume {self.path}` goes on"
        with self.locked() if first else nullcontext(), signals.told(f"interrupted; {go_on}"):
            try:
                with files.writing(self.path):
                    yield
            except Hindered as problem:
                raise TacitError(f"{problem}; then {go_on}") from problem

    def read_config(self) -> dict[str, Any]:
        """The content of `config.toml`, with everything in it that opening a run takes."""
        try:
            values = tomllib.loads(files.read_text(self.config))
        except (tomllib.TOMLDecodeError, RecursionError) as problem:
            raise TacitError(f"cannot read {self.config} ({problem}); restore it or start a new run") from problem
        validated(Whole, values, str(self.config))
        return values

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
            if not path.is_file() or path.stat().st_size < length:
                raise TacitError(f"{path} is shorter than it was at the last checkpoint; restore it, or remove the checkpoint")
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
        """Put everything on the disk, so that a checkpoint never knows of rows that a power cut took; the length in bytes."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        self._file.close()


def read_table(path: Path) -> dict[str, list[float | None]]:
    """The columns of a table of numbers; empty cells are None. A last row that was cut short is left out."""
    if not path.is_file():
        return {}
    whole = files.read_text(path)
    try:
        rows = list(csv.reader(whole[: whole.rfind("\n") + 1].splitlines()))
        columns: dict[str, list[float | None]] = {name: [] for name in rows[0]} if rows else {}
        for row in rows[1:]:
            if len(row) == len(columns):
                for name, cell in zip(columns, row, strict=True):
                    columns[name].append(float(cell) if cell else None)
    except (ValueError, csv.Error) as problem:
        raise TacitError(f"{path} is no table of numbers ({str(problem)[:100]!r}); restore it or remove it") from problem
    return columns


def write_lines(path: Path, rows: Sequence[Sequence[str]]) -> None:
    """A tab-separated file; tabs and new lines within a cell are escaped."""
    files.write_text(path, "".join("\t".join(_cell(cell) for cell in row) + "\n" for row in rows))


def _left_over(name: str) -> bool:
    """Whether this is all that a process leaves which is killed while it begins a run."""
    return name in (LOCK, TOKENIZER, NEEDS, "run.json") or name.endswith(".part")


def _text(value: float | int | None) -> str:
    if value is None:
        return ""
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def _cell(text: str) -> str:
    return text.encode("unicode_escape").decode("ascii") if any(c in text for c in "\t\n\r\\") else text


def training_of(weights: object) -> dict[str, Any]:
    """How the run was trained whose folder these weights are; empty where there are none, or they are those of a file."""
    if not weights or not (folder := RunFolder(str(weights))).config.is_file():
        return {}
    return folder.read_config()["train"]
