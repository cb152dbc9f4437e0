"""The same steps on one, two and four processes: how far apart are they at the end?

    python benchmarks/ranks.py

Every host, with encoders with and without batch statistics, three steps over an epoch's end with a last batch that does not
divide, weights copied (ddp) or cut into parts (fsdp); the cases are those of `tests/reliability/test_ranks_optimisation.py`,
which asserts bounds. In float64 what differs is wrong; in float32 it is rounding. Writes `benchmarks/results/ranks.json`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import layout
import torch
from pairs import RESULTS

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/reliability"))
from on_ranks import on_ranks
from test_ranks_optimisation import CASES, STRATEGIES, made, pairs, pictures, taken

from tacit.core import files
from tacit.train.machine import describe

FILE = RESULTS / "ranks.json"
COUNTS = (2, 4)


def every(data: str) -> dict[str, Any]:
    """What this process and those beside it come to."""
    found = {f"{case} {how}": taken(*made(case, how, data)) for case in CASES for how in STRATEGIES}
    rounded = {f"{case} {how} float32": made(case, how, data, exact=False, lr=1e-3) for case in CASES for how in STRATEGIES}
    return found | {name: {"losses": taken(*steps)["losses"]} for name, steps in rounded.items()}


def apart(one: Any, other: Any) -> float:
    """The largest difference between two states, tensor by tensor as a share of its largest number, of 0.001 at least."""
    return max(
        float((ours.double() - theirs.double()).abs().max() / theirs.double().abs().max().clamp(min=1e-3))
        for _, (ours, theirs) in pairs(one, other)
        if ours.numel()
    )


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: a line per case, number of processes and strategy."""
    head = ["method and encoder", "processes", "weights", "state in float64", "loss in float32"]
    said = ((r["case"], str(r["ranks"]), r["strategy"], f"{r['float64']:.0e}", f"{r['float32']:.0e}") for r in rows)
    return layout.table(head, said)


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        data = pictures(Path(folder))
        alone = every(data)
        for count in COUNTS:
            together = on_ranks(count, every, data)[0]
            for case in CASES:
                for how in STRATEGIES:
                    # Copies and parts begin with the same weights; a state is compared with that of one process with copies.
                    exact = apart(together[f"{case} {how}"], alone[f"{case} ddp"])
                    rounded = apart(together[f"{case} {how} float32"], alone[f"{case} ddp float32"])
                    rows.append({"case": case, "ranks": count, "strategy": how, "float64": exact, "float32": rounded})
    files.write_json(FILE, {"machine": describe(), "runs": rows})
    print(table(rows))


if __name__ == "__main__":
    main()
