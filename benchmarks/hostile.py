"""How much damage tacit takes: mutated inputs for every format and artefact, each format in processes with limits.

    python -m benchmarks.hostile --inputs 500

An input counts as refused (in one line), as read, or as a failure: a traceback, a hang (20 seconds), more than 2 GB beyond what
the process had, the end of the process. Writes `benchmarks/results/hostile.json`; `--table` prints that file as a table.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from tests.fuzz.attack import MEMORY, SECONDS, attack
from tests.fuzz.targets import targets

from tacit.core import files
from tacit.train.machine import describe

RESULTS = Path(__file__).parent / "results" / "hostile.json"


def table(found: dict[str, Any]) -> str:
    """Markdown: one row a format or artefact."""
    lines = ["| input | tried | refused | read | failures | most memory (MB) |", "|---|---|---|---|---|---|"]
    for name, row in found.items():
        lines.append(
            f"| {name} | {row['inputs']} | {row['refused']} | {row['read']} | {len(row['failures'])} | {row['peak_mb']} |"
        )
    total = {key: sum(row[key] for row in found.values()) for key in ("inputs", "refused", "read")}
    failures = sum(len(row["failures"]) for row in found.values())
    lines.append(f"| all | {total['inputs']:,} | {total['refused']:,} | {total['read']:,} | {failures} | |")
    return "\n".join(lines)


def main() -> None:
    """Run what was asked for; a file that exists is added to, so that a cut-off attack goes on."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--inputs", type=int, default=500)
    words.add_argument("--only", default="", help="only inputs whose name begins so")
    words.add_argument("--again", action="store_true", help="forget what was found before")
    words.add_argument("--table", action="store_true", help="only print the table of what was found")
    asked = words.parse_args()
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() and not asked.again else {}
    content = {"machine": describe(), "limits": {"seconds": SECONDS, "bytes": MEMORY}, "inputs": kept.get("inputs", {})}
    for name in () if asked.table else targets():
        if not name.startswith(asked.only) or content["inputs"].get(name, {}).get("inputs", 0) >= asked.inputs:
            continue
        start = time.monotonic()
        content["inputs"][name] = attack(name, asked.inputs)
        files.write_json(RESULTS, content)
        print(f"{name}: {len(content['inputs'][name]['failures'])} failures, {time.monotonic() - start:.0f} s", flush=True)
    print(table(content["inputs"]))


if __name__ == "__main__":
    main()
