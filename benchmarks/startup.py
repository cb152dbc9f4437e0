"""How soon the command line answers, beside the start of Python itself: `python benchmarks/startup.py [--pairs 7]`.

Goal: `tacit --help` within three times Python's start plus 0.15 s, `tacit methods` plus 0.25 s.
"""

from __future__ import annotations

import subprocess
import sys

from pairs import alternate, asked, keep, row, show, summary

COMMANDS = {
    "python": ["-c", "pass"],
    "tacit --help": ["-m", "tacit.cli", "--help"],
    "tacit methods": ["-m", "tacit.cli", "methods"],
    "tacit samples": ["-m", "tacit.cli", "samples"],
}
MORE = {"tacit --help": 0.15, "tacit methods": 0.25}


def main() -> None:
    """Alternate the commands and compare each with what is allowed."""
    sides = {
        name: lambda words=words: subprocess.run([sys.executable, *words], stdout=subprocess.DEVNULL, check=True)
        for name, words in COMMANDS.items()
    }
    seconds = alternate(sides, asked(pairs=7).pairs)
    show(seconds)
    rows = []
    for name, more in MORE.items():
        shares = [mine / (3 * python + more) for mine, python in zip(seconds[name], seconds["python"], strict=True)]
        rows.append(row(f"`{name}`", f"three times the start of Python, plus {more} s", shares, most=1.0))
    keep("startup", {"rows": rows, "seconds": summary(seconds)})


if __name__ == "__main__":
    main()
