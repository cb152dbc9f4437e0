"""What each host reaches with `--recipe auto` in a few minutes, beside the untrained encoder and raw pixels.

    python benchmarks/hosts.py --minutes 2 --seeds 0 1 2

Writes `benchmarks/results/hosts.json`, which holds every record with the machine it was made on; `--table` prints the table
of the documents from that file. One run at a time: two that compute side by side slow each other down many times over.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from cells import ENCODERS, Cells, attempted, mean, measured

RESULTS = Path(__file__).parent / "results" / "hosts.json"
SETS = ("sample:omniglot_small", "sample:clothing96", "sample:fashion_mnist_sprite")
HOSTS = ("simclr", "moco-v3", "dino", "mae")


def table(found: list[dict[str, Any]]) -> str:
    """Markdown: k-NN / linear probe on test in per cent, mean (and deviation over seeds where there are several)."""
    lines = ["| data | host | run | untrained | raw pixels | verdict |", "|---|---|---|---|---|---|"]
    for data in dict.fromkeys(row["data"] for row in found):
        for host in dict.fromkeys(row["host"] for row in found):
            rows = [row for row in found if (row["data"], row["host"]) == (data, host)]
            done = [row for row in rows if "stopped" not in row]
            cells = [
                " / ".join(mean([row[f"{protocol} {encoder}"] for row in done]) for protocol in ("knn", "linear"))
                for encoder in ENCODERS
            ]
            verdicts = ", ".join(sorted({row.get("verdict", "stopped") for row in rows}))
            lines.append(f"| {data.removeprefix('sample:')} | {host} | {' | '.join(cells)} | {verdicts} |")
    return "\n".join(lines)


def main() -> None:
    """Run what was asked for; a file that exists is added to, so that a cut-off benchmark goes on."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--minutes", type=float, default=2)
    words.add_argument("--seeds", type=int, nargs="+", default=[0])
    words.add_argument("--hosts", nargs="+", default=HOSTS)
    words.add_argument("--data", nargs="+", default=SETS)
    words.add_argument("--table", action="store_true", help="only print the table of what was measured")
    asked = words.parse_args()
    cells = Cells(RESULTS)
    for seed in asked.seeds if not asked.table else ():
        for data in asked.data:
            for host in asked.hosts:
                cell = {"host": host, "data": data, "seed": seed, "minutes": asked.minutes}
                if cells.missing(cell):
                    cells.add(cell, attempted(cell, partial(measured, cell, data)))
    print(table(cells.content["runs"]))


if __name__ == "__main__":
    main()
