"""How much damage tacit takes: mutated inputs for every format and artefact, each format in processes with limits.

    python -m benchmarks.hostile --inputs 500

An input counts as refused (in one line), as read, or as a failure: a traceback, a hang (20 seconds), more than 2 GB beyond what
the process had, the end of the process. Writes `benchmarks/results/hostile.json`; `--table` prints that file as a table.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import layout
from tests.fuzz.attack import MEMORY, SECONDS, attack
from tests.fuzz.targets import targets

from tacit.core import files
from tacit.train.machine import describe

RESULTS = Path(__file__).parent / "results" / "hostile.json"


def table(found: dict[str, Any]) -> str:
    """Markdown: one row a format or artefact."""
    lines = []
    for name, row in found.items():
        counts = row["inputs"], row["refused"], row["read"], len(row["failures"]), row["peak_mb"]
        lines.append([name, *map(str, counts)])
    total = {key: sum(row[key] for row in found.values()) for key in ("inputs", "refused", "read")}
    failures = sum(len(row["failures"]) for row in found.values())
    lines.append(["all", *(f"{count:,}" for count in total.values()), str(failures), ""])
    return layout.table(["input", "tried", "refused", "read", "failures", "most memory (MB)"], lines)


def main() -> None:
    """Run what was asked for; a file that exists is added to, so that a cut-off attack goes on."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--inputs", type=int, default=500)
    words.add_argument("--only", nargs="+", default=[""], help="only inputs whose name begins with one of these")
    words.add_argument("--again", action="store_true", help="forget what was found before")
    words.add_argument("--table", action="store_true", help="only print the table of what was found")
    asked = words.parse_args()
    if asked.again and not asked.table:
        RESULTS.unlink(missing_ok=True)
    for name in () if asked.table else targets():
        if not name.startswith(tuple(asked.only)) or _found().get(name, {}).get("inputs", 0) >= asked.inputs:
            continue
        start = time.monotonic()
        row = attack(name, asked.inputs)
        content = {"machine": describe(), "limits": {"seconds": SECONDS, "bytes": MEMORY}}
        files.write_json(RESULTS, {**content, "inputs": {**_found(), name: row}})
        print(f"{name}: {len(row['failures'])} failures, {time.monotonic() - start:.0f} s", flush=True)
    print(table(_found()))


def _found() -> dict[str, Any]:
    """What is known so far, by the name of the target; several processes may add to it."""
    return files.read_json(RESULTS)["inputs"] if RESULTS.exists() else {}


if __name__ == "__main__":
    main()
