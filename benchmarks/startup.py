"""How soon the command line answers, beside the start of Python itself: `python benchmarks/startup.py`.

Goal: `tacit --help` within three times Python's start plus 0.15 s, `tacit methods` plus 0.25 s.
"""

from __future__ import annotations

import statistics
import subprocess
import sys

from pairs import alternate, keep, show, summary

COMMANDS = {
    "python": ["-c", "pass"],
    "tacit --help": ["-m", "tacit.cli", "--help"],
    "tacit methods": ["-m", "tacit.cli", "methods"],
    "tacit samples": ["-m", "tacit.cli", "samples"],
}


def main() -> None:
    """Alternate the commands and compare their medians with what is allowed."""
    sides = {
        name: lambda words=words: subprocess.run([sys.executable, *words], stdout=subprocess.DEVNULL, check=True)
        for name, words in COMMANDS.items()
    }
    seconds = alternate(sides, pairs=7)
    python = statistics.median(seconds["python"])
    allowed = {"tacit --help": 3 * python + 0.15, "tacit methods": 3 * python + 0.25}
    show(seconds)
    for name, most in allowed.items():
        print(f"{name}: {'within' if statistics.median(seconds[name]) <= most else 'ABOVE'} the {most:.3f} s allowed")
    keep("startup", {"seconds": summary(seconds), "allowed": allowed})


if __name__ == "__main__":
    main()
