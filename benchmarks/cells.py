"""Cells of a benchmark of quality: a run and what evaluation says of it, in a file that grows cell by cell."""

from __future__ import annotations

import json
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tacit
from tacit.core import files
from tacit.core.errors import Hindered, Interrupted, TacitError
from tacit.data.cache import cache_folder
from tacit.train.machine import describe

Row = dict[str, Any]
ENCODERS = ("run", "untrained", "input")


class Cells:
    """A results file `{machine, runs}`. What is in it is not measured again, so that a cut-off benchmark goes on.

    Several processes may add to the same file.
    """

    def __init__(self, file: Path) -> None:
        self.file = file

    @property
    def content(self) -> Row:
        """What the file holds now."""
        return json.loads(self.file.read_text()) if self.file.exists() else {"machine": describe(), "runs": []}

    def missing(self, cell: Row) -> bool:
        """Whether no row has all these values."""
        return not any(all(row.get(name) == value for name, value in cell.items()) for row in self.content["runs"])

    def add(self, cell: Row, row: Row) -> None:
        """Append the row of a cell, unless another process was quicker, and print it."""
        with files.locked(cache_folder() / f"{self.file.name}.lock", busy=lambda who: None):
            if self.missing(cell):
                content = self.content
                content["runs"].append(row)
                files.write_json(self.file, content)
        print(json.dumps(row), flush=True)


def title(cell: Row) -> str:
    """What a cell's run is called where runs are kept."""
    return "-".join(str(value) for value in cell.values())


@contextmanager
def place(runs: Path | None, name: str) -> Iterator[Path]:
    """Where a run is to lie: in a folder that keeps runs, or in one that is gone afterwards."""
    if runs is not None:
        yield runs / name
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / name


def trained(host: str, data: str, out: Path, options: Row, **budget: Any) -> tuple[tacit.Run, Row]:
    """A run of `auto`, and what a table says of it. One that lies there is taken as it is, without its seconds.

    Raises:
        TacitError: it was refused or stopped.
    """
    there, start = out.exists(), time.monotonic()
    run = tacit.pretrain(host, data, out=out, options=options, resume=True, **budget)
    seconds = {} if there else {"seconds": round(time.monotonic() - start, 1)}
    train = run.config["train"]
    return run, {
        **seconds,
        "samples_seen": train["steps"] * train["batch"],
        **{name: train[name] for name in ("encoder", "size", "batch", "precision")},
        "verdict": run.verdict["verdict"],
        "effective_rank": run.verdict["figures"].get("effective_rank"),
    }


def measured(cell: Row, data: str, runs: Path | None = None, **given: Any) -> Row:
    """A cell's run on `data` for its `minutes` or `samples`, and k-NN and the linear probe on test.

    Args:
        cell: what the row is known by; `host` and `seed` are among it.
        data: samples with labels and splits.
        runs: where finished runs are kept; nowhere by default.
        given: further options of the run.
    """
    with place(runs, title(cell)) as out:
        budget = {name: cell[name] for name in ("minutes", "samples") if name in cell}
        run, row = trained(cell["host"], data, out, {"seed": cell["seed"], **given}, **budget)
        return row | figures(run.evaluate(data, protocols=["knn", "linear"], seed=cell["seed"]))


def attempted(cell: Row, measure: Callable[[], Row]) -> Row:
    """The row of a cell: what `measure` says, or why it was refused or stopped, without places on this machine."""
    try:
        return cell | measure()
    except (Hindered, Interrupted):  # which says nothing about the cell
        raise
    except TacitError as problem:
        return cell | {"stopped": re.sub(r"/\S*/", "", str(problem))}


def figures(records: Iterable[Any]) -> dict[str, float]:
    """Accuracies by protocol and encoder (`knn run`), by `balanced` where it is another figure (`knn balanced run`)."""
    found = {}
    for record in records:
        metric = record.metric.removeprefix("top1").replace("_", " ").strip()
        if metric != "top5" and record.value is not None:
            found[" ".join(filter(None, (record.protocol, metric, record.encoder)))] = round(record.value, 4)
    return found


def mean(values: list[float]) -> str:
    """In per cent, with the deviation over seeds where there are several; a dash where there is nothing."""
    if not values:
        return "-"
    spread = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * statistics.fmean(values):.1f}{spread}"
