"""What whitening does to k-NN: kept runs of `quality.py`, judged by their features as they are and whitened.

    python benchmarks/quality.py minutes DATA --runs RUNS ...
    python benchmarks/whitening.py DATA --runs RUNS

The untrained encoder and raw pixels are whitened in the same way, by the same samples. Adds to
`benchmarks/results/whitening.json` run by run and repeats none that is there; `python docs/generated.py` puts the table into
`docs/results.md`.
"""

from __future__ import annotations

import argparse
import tempfile
from functools import partial
from pathlib import Path

import layout
import torch
from cells import ENCODERS, Cells, Row, attempted, figures, mean, title
from pairs import RESULTS
from quality import HOSTS, began
from quality_table import by, values
from sets import SETS, Sets

import tacit

FILE = RESULTS / "whitening.json"
FEATURES = ("pooled", "whitened")


def measured(run: Path, data: str, seed: int) -> Row:
    """k-NN on test with either, for the run and its baselines."""
    row, opened = {}, tacit.load(run)
    for features in FEATURES:
        found = figures(opened.evaluate(data, protocols=["knn"], seed=seed, features=features))
        row |= {f"{features} {encoder}": found[f"knn {encoder}"] for encoder in ENCODERS}
    return row


def best_baseline(rows: list[Row]) -> float:
    """The best mean of the untrained encoder and raw input, as they are or whitened."""
    return max(sum(values(rows, f"{features} {other}")) / len(rows) for features in FEATURES for other in ENCODERS[1:])


def table(rows: list[Row]) -> str:
    """Markdown: k-NN of all three, plain and whitened, and on how many sets a method's better one is above all baselines."""
    rows = [row for row in rows if "stopped" not in row]
    lines, ahead = [], {host: [0, 0, 0] for host in dict.fromkeys(row["host"] for row in rows)}
    for (data, host), found in by(rows, "data", "host"):
        cells = [[mean(values(found, f"{features} {encoder}")) for features in FEATURES] for encoder in ENCODERS]
        lines.append([data, host, *(" / ".join(pair) for pair in cells)])
        for place, features in enumerate(FEATURES):
            ahead[host][place] += sum(values(found, f"{features} run")) / len(found) > best_baseline(found)
        ahead[host][2] += 1
    said = "; ".join(f"{host} {plain} and {white} of {of}" for host, (plain, white, of) in ahead.items())
    told = f"Above the best of all four baselines, as they are and whitened, on so many sets: {said}."
    return f"{layout.table(['set', 'method', 'run', 'untrained', 'raw pixels'], lines)}\n\n{told}"


def main() -> None:
    """Judge every run that lies there and is not in the results yet, and print the table."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("folder", type=Path, help="where the sets lie")
    words.add_argument("--runs", type=Path, required=True, help="where `quality.py` kept its runs")
    words.add_argument("--minutes", type=float, default=2.0)
    words.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    words.add_argument("--threads", type=int, default=1, help="that the runs had")
    words.add_argument("--file", type=Path, default=FILE)
    asked = words.parse_args()
    torch.set_num_threads(asked.threads)
    results = Cells(asked.file)
    with tempfile.TemporaryDirectory() as made:
        sets = Sets(asked.folder, Path(made))
        for seed in asked.seeds:
            for data in SETS:
                for host in HOSTS:
                    cell = {"host": host, "minutes": asked.minutes, "seed": seed, "threads": asked.threads}
                    run = asked.runs / title(began(cell, data))
                    if run.is_dir() and results.missing({"data": data, **cell}):
                        row = attempted({"data": data, **cell}, partial(measured, run, sets(data), seed))
                        results.add({"data": data, **cell}, row)
    print(table(results.content["runs"]))


if __name__ == "__main__":
    main()
