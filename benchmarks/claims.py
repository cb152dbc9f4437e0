"""The papers' claims that can be seen at small scale, each on small real data, three seeds, equal epochs or steps.

    python benchmarks/claims.py hosts DATA --seeds 0 1 2

DATA is the folder that the sets lie in. Runs are counted in epochs or steps, so that the figures do not depend on the machine.
Adds to `benchmarks/results/claims.json` run by run and repeats none that is there.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import claims_channels
import claims_hosts
import claims_pairs
import claims_points
import claims_video
import claims_volumes
import layout
from cells import Cells
from claim import Claim, Run
from pairs import RESULTS

import tacit

FILE = RESULTS / "claims.json"
SHARED: dict[str, Any] = {"stop_on": "none", "checkpoint_every": "30m"}
PARTS = {
    "channels": claims_channels,
    "hosts": claims_hosts,
    "points": claims_points,
    "pairs": claims_pairs,
    "video": claims_video,
    "volumes": claims_volumes,
}
"""By name, modules with `TITLE`, `RUNS` and `CLAIMS`."""


def measure(name: str, run: Run, folder: Path, seed: int) -> dict[str, Any]:
    """One run and its figures."""
    row: dict[str, Any] = {"run": name, "seed": seed}
    with tempfile.TemporaryDirectory() as place:
        out, data = Path(place) / "run", run.lies(folder, Path(place) / "set")
        try:
            done = tacit.pretrain(run.method, data, out=out, options=SHARED | run.options | {"seed": seed}, **run.budget)
        except tacit.Stopped as stop:
            return row | {"stopped": str(stop)}
        trained = {"verdict": done.verdict["verdict"], "steps": done.config["train"]["steps"]}
        return row | trained | dict(run.figures(done, data, seed))


def table(found: list[dict[str, Any]]) -> str:
    """Markdown: what was measured of every part, with its sets and the number of seeds above the claims."""
    texts = []
    for part in PARTS.values():
        counts = Counter(row["run"] for row in found if row["run"] in part.RUNS)
        if counts:
            sets = ", ".join(f"`{name}`" for name in dict.fromkeys(part.RUNS[name].data for name in counts))
            seeds = " to ".join(map(str, sorted({min(counts.values()), max(counts.values())})))
            texts.append(f"**{part.TITLE}**, on {sets}, seeds: {seeds}\n\n{claimed(found, part.CLAIMS)}")
    return "\n\n".join(texts)


def claimed(found: list[dict[str, Any]], claims: Sequence[Claim]) -> str:
    """Markdown: every claim, both figures (mean and deviation over seeds), and whether it showed."""
    lines = []
    for claim in claims:
        sides = [[claim.unit * row[figure] for row in found if row["run"] == name and figure in row] for name, figure in
                 (claim.first, claim.second)]  # fmt: skip
        if not all(sides):
            lines.append([claim.says, "", "", "", "not measured"])
            continue
        cells = [
            f"{name}, {figure}: {statistics.fmean(side):.1f}" + (f" ± {statistics.stdev(side):.1f}" if len(side) > 1 else "")
            for (name, figure), side in zip((claim.first, claim.second), sides, strict=True)
        ]
        gain = statistics.fmean(sides[0]) - statistics.fmean(sides[1])
        shown = round(gain, 6) > claim.by  # as good as is not above
        lines.append([claim.says, *cells, f"{claim.by:+g}", f"{'yes' if shown else 'no'} ({gain:+.1f})"])
    return layout.table(["claim", "first", "second", "wanted", "shown"], lines)


def main() -> None:
    """Run what is missing, and print the tables."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("part", choices=PARTS)
    words.add_argument("folder", type=Path, help="where the sets lie")
    words.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    words.add_argument("--runs", nargs="+", help="only these")
    words.add_argument("--file", type=Path, default=FILE)
    asked = words.parse_args()
    cells, part = Cells(asked.file), PARTS[asked.part]
    for seed in asked.seeds:
        for name in asked.runs or part.RUNS:
            cell = {"run": name, "seed": seed}
            if cells.missing(cell):
                cells.add(cell, measure(name, part.RUNS[name], asked.folder, seed))
    print(claimed(cells.content["runs"], part.CLAIMS))


if __name__ == "__main__":
    main()
