"""What a step, an index and a batch cost as they grow: `python benchmarks/growth.py [--rows 10000000]`.

Made-up indices of 1,000 rows and ten times as many until `--rows`, each opened, and a batch made of it, by processes of their
own (`scale.py`). How a step grows with its batch and with the size of its views is what `steps.py` found. The laws beside them:
a step grows with the number of its pixels, an index is looked through once at its opening, and a batch does not know how many
samples there are.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

from lines import Panel, Points, drawn, law
from pairs import RESULTS, asked, keep

PICTURE = Path(__file__).parents[1] / "docs/images/growth.svg"
TITLE, DRAWN = "Seconds of a step, of opening an index and of a batch, as they grow", ("steps", "growth")
"""Of the picture, and which results it is drawn from."""

SMALLEST, OPENINGS = 1000, 5
STEPS = {"batch": ("batch", 1), "side": ("pixels along a side", 2)}
"""What a step grows with, and the power of the law."""

ROWS = {"open_seconds": ("s to open an index", 1), "first_batch_seconds": ("s for the first batch", 0)}


def chart() -> str:
    """A step's growth, and that of an index and of a batch."""
    steps, index = (json.loads((RESULTS / f"{name}.json").read_text()) for name in DRAWN)
    panels = []
    for against, (across, power) in STEPS.items():
        lines = {
            method: sorted((float(at), spread["median"]) for at, spread in grown[against].items())
            for method, grown in steps["growth"].items()
        }
        panels.append(panel("s for a step", across, lines, power))
    for figure, (title, power) in ROWS.items():
        points = [(float(found["rows"]), statistics.median(found[figure])) for found in index["index"]]
        panels.append(panel(title, "rows", {"index": points}, power))
    return drawn(TITLE, panels)


def panel(title: str, across: str, lines: dict[str, Points], power: float) -> Panel:
    return Panel(title, across, lines, {name: law(points, power) for name, points in lines.items()}, logarithmic=True)


def measured(rows: int) -> dict[str, Any]:
    """An index of so many rows: seconds of opening it, and of the first batch then, of each of some processes."""
    from scale import index, opened

    index(rows)
    found = [opened(rows, step=0) for _ in range(OPENINGS)]
    print(rows, found)
    return {"rows": rows} | {figure: [each[figure] for each in found] for figure in ROWS}


def main() -> None:
    """Write `results/growth.json`."""
    most = asked(rows=10_000_000).rows
    sizes = [SMALLEST * 10**power for power in range(20) if SMALLEST * 10**power <= most]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TACIT_CACHE"] = folder
        keep("growth", {"index": [measured(rows) for rows in sizes]})


if __name__ == "__main__":
    main()
