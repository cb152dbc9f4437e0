"""Switch mutations on in a copy of the sources, one after another, and see whether their tests turn red."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from .table import MUTATIONS, ROOT, Mutation

SECONDS = 120
"""A test that a mutant keeps busy for longer has noticed it."""


def outcome(tests: list[str], sources: Path) -> str:
    """`green`, `red`, or why neither can be said."""
    environment = {**os.environ, "PYTHONPATH": str(sources), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *(f"tests/{test}" for test in tests)]
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=SECONDS * len(tests))
    except subprocess.TimeoutExpired:
        return "red"
    if done.returncode < 0:  # it ended the process
        return "red"
    lines = done.stdout.strip().splitlines() or ["nothing was said"]
    return {0: "green", 1: "red"}.get(done.returncode, f"no answer: {lines[-1]}")


def mutated(mutation: Mutation, sources: Path) -> str:
    """What the mutation's test says about it; the copy of the sources is as before afterwards."""
    file = sources / "tacit" / mutation.file
    text = file.read_text()
    if text.count(mutation.old) != 1:
        return f"the old text occurs {text.count(mutation.old)} times in {mutation.file}"
    file.write_text(text.replace(mutation.old, mutation.new))
    try:
        return outcome([mutation.test], sources)
    finally:
        file.write_text(text)


def main(names: list[str]) -> int:
    """0 if every mutation whose name contains one of `names` (all, without any) turned its test red."""
    chosen = [mutation for mutation in MUTATIONS if not names or any(name in mutation.name for name in names)]
    if not chosen:
        print(f"no mutation is called {' or '.join(names)}; there are:", *(m.name for m in MUTATIONS), sep="\n  ")
        return 2
    with tempfile.TemporaryDirectory() as folder:
        sources = Path(folder) / "src"
        shutil.copytree(ROOT / "src", sources, ignore=shutil.ignore_patterns("__pycache__"))
        before = outcome(sorted({mutation.test for mutation in chosen}), sources)
        if before != "green":
            print(f"without any mutation the tests are not green: {before}")
            return 1
        survived = 0
        for mutation in chosen:
            found = mutated(mutation, sources)
            survived += found != "red"
            said = "caught" if found == "red" else f"SURVIVED ({found})"
            print(f"{said:<10} {mutation.name:<58} {mutation.test}", flush=True)
    print(f"{len(chosen) - survived} of {len(chosen)} mutations caught")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
