"""How large views should be in a short run: the same minutes on views of 12 to 32 pixels.

    python benchmarks/sides.py DATA --minutes 4 --seeds 0 1 2

DATA is the folder that the sets lie in. Nothing else may compute on the same cores. Adds to `benchmarks/results/sides.json` run
by run and repeats none that is there; `python docs/generated.py` puts the table into `docs/results.md`.
"""

from __future__ import annotations

import argparse
from functools import partial
from itertools import product
from pathlib import Path

import layout
import torch
from cells import Cells, Row, attempted, mean, measured
from pairs import RESULTS

FILE = RESULTS / "sides.json"
SETS = ("cifar10_subset", "omniglot_small", "clothing96")


def table(found: list[Row]) -> str:
    """Markdown: k-NN / linear probe on test in per cent, mean and deviation over seeds; a row per set, host and time."""
    sides = sorted({row["size"] for row in found})
    lines = []
    for data, host, minutes in dict.fromkeys((row["data"], row["host"], row["minutes"]) for row in found):
        cells = []
        for side in sides:
            key = (data, host, minutes, side)
            rows = [row for row in found if (row["data"], row["host"], row["minutes"], row["size"]) == key]
            cells.append(
                " / ".join(mean([row[f"{name} run"] for row in rows if "stopped" not in row]) for name in ("knn", "linear"))
            )
        lines.append([data, host, f"{minutes:g}", *cells])
    return layout.table(["set", "method", "minutes", *(f"{side} pixels" for side in sides)], lines)


def main() -> None:
    """Measure what is not in the results yet, and print the table."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("folder", type=Path, help="where the sets lie")
    words.add_argument("--sets", nargs="+", default=SETS)
    words.add_argument("--hosts", nargs="+", default=["simclr"])
    words.add_argument("--sides", type=int, nargs="+", default=[12, 16, 20, 24, 32])
    words.add_argument("--minutes", type=float, nargs="+", default=[4.0])
    words.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    words.add_argument(
        "--largest", type=int, default=32, help="view that features are taken of, at most, where it is 1.5 sides"
    )
    words.add_argument("--threads", type=int, default=torch.get_num_threads())
    words.add_argument("--file", type=Path, default=FILE)
    asked = words.parse_args()
    torch.set_num_threads(asked.threads)
    cells = Cells(asked.file)
    for seed, minutes, data, host, side in product(asked.seeds, asked.minutes, asked.sets, asked.hosts, asked.sides):
        cell = {"data": data, "host": host, "minutes": minutes, "size": side, "seed": seed, "threads": asked.threads}
        if cells.missing(cell):
            given = {"size": side, "feature_size": min(asked.largest, side + side // 2), "encoder": "resnet-mini"}
            cells.add(cell, attempted(cell, partial(measured, cell, str(asked.folder / data), **given)))
    print(table(cells.content["runs"]))


if __name__ == "__main__":
    main()
