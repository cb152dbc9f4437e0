"""Every method on every bundled sample of its kind, as a newcomer runs it: does it learn, and does anything collapse?

    python benchmarks/bundled.py --methods rspnet child-video

With `--recipe quick`, so two minutes a run. Where a sample has classes, k-NN of them stands beside, on the sample's own split.
Adds to `benchmarks/results/bundled.json` run by run and repeats none that is there; `python docs/generated.py` puts the table
into `docs/results.md`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import layout
import torch
from cells import Cells, Row, attempted, figures, place, trained
from pairs import RESULTS

from tacit.data.open import open_data
from tacit.data.samples import SAMPLES
from tacit.methods.registry import METHODS, method

FILE = RESULTS / "bundled.json"
PAIRS = ("emoji_names",)
"""Samples with captions."""

RANKS = ("effective_rank", "place_rank")


def samples(name: str) -> list[str]:
    """The samples that a method takes."""
    kinds = method(name).kinds
    return list(PAIRS) if kinds == ("pair",) else [sample.name for sample in SAMPLES.values() if sample.kind in kinds]


def measured(cell: Row) -> Row:
    """A run, its verdict, its ranks, and k-NN where there are classes."""
    data = f"sample:{cell['data']}"
    with place(None, "run") as out:
        run, row = trained(cell["host"], data, out, {"seed": cell["seed"]}, recipe="quick")
        row["steps"] = run.config["train"]["steps"]
        row["ranks"] = {
            name: [found.get(name) for found in (run.verdict["baselines"]["untrained"], run.verdict["figures"])]
            for name in RANKS
        }
        if open_data(data).index.strings("label") is not None:
            row |= figures(run.evaluate(data, protocols=["knn"], seed=cell["seed"]))
        return row


def table(rows: list[Row]) -> str:
    """Markdown: a line for each method and sample."""
    head = ["method", "sample", "steps", "verdict", "effective rank: untrained, trained", "k-NN", "untrained", "raw input"]
    return layout.table(head, (_line(row) for row in rows))


def _line(row: Row) -> list[str]:
    if "stopped" in row:
        return [row["host"], row["data"], "", row["stopped"], "", "", "", ""]
    rank = " → ".join(f"{value:.1f}" for value in row["ranks"]["effective_rank"])
    if None not in row["ranks"]["place_rank"]:
        rank += " (of places " + " → ".join(f"{value:.1f}" for value in row["ranks"]["place_rank"]) + ")"
    found = [f"{100 * row[key]:.1f}" if (key := f"knn {which}") in row else "-" for which in ("run", "untrained", "input")]
    return [row["host"], row["data"], f"{row['steps']:,}", row["verdict"], rank, *found]


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    words.add_argument("--threads", type=int, default=torch.get_num_threads())
    words.add_argument("--file", type=Path, default=FILE)
    asked = words.parse_args()
    torch.set_num_threads(asked.threads)
    cells = Cells(asked.file)
    wanted: list[dict[str, Any]] = [
        {"host": name, "data": sample, "seed": 0, "threads": asked.threads}
        for name in asked.methods
        for sample in samples(name)
    ]
    for cell in wanted:
        if cells.missing(cell):
            cells.add(cell, attempted(cell, lambda cell=cell: measured(cell)))


if __name__ == "__main__":
    main()
