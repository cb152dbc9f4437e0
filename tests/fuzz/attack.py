"""Mutated inputs in a cage: a process with a clock and a limit on its memory, which may die and is then counted."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from tests.fuzz.mutations import mutations
from tests.fuzz.targets import refusal, targets

SECONDS = 20
"""An input that takes longer is a hang."""

MEMORY = 2 << 30
"""An input that asks for more than this, beyond what the process had before, is out of bounds."""


def attack(name: str, count: int) -> dict[str, Any]:
    """`count` mutated inputs for one target: how many were refused in one line, read, or failed, and how."""
    tally: dict[str, Any] = {"inputs": 0, "refused": 0, "read": 0, "failures": [], "peak_mb": 0, "slowest_s": 0.0}
    start = 0
    with tempfile.TemporaryDirectory() as folder:
        while start < count:
            # A process that dies has said how far it came; the next one goes on behind that input.
            progress = Path(folder) / "progress.jsonl"
            progress.write_text("")
            command = [sys.executable, "-m", "tests.fuzz.attack", name, str(start), str(count), str(progress)]
            done = subprocess.run(command, capture_output=True, text=True)
            lines = [json.loads(line) for line in progress.read_text().splitlines()]
            for line in lines:
                tally["inputs"] += 1
                tally["peak_mb"] = max(tally["peak_mb"], line["mb"])
                tally["slowest_s"] = max(tally["slowest_s"], line["seconds"])
                if line["failure"]:
                    tally["failures"].append({"input": line["input"], "what": line["failure"]})
                else:
                    tally["read" if line["refusal"] is None else "refused"] += 1
            start += len(lines)
            if done.returncode:
                how = "took too long" if done.returncode == -signal.SIGALRM else f"ended the process ({done.returncode})"
                tally["inputs"] += 1
                tally["failures"].append({"input": start, "what": f"{how}: {done.stderr.strip()[-800:]}"})
                if not lines and start == 0 and "Error" in done.stderr and done.returncode == 1:
                    raise RuntimeError(done.stderr)
                start += 1
    return tally


def _caged(name: str, start: int, count: int, progress: Path) -> None:
    """In the cage: one input after another, a line for each."""
    target = targets()[name]
    with tempfile.TemporaryDirectory() as base:
        folder, saved = Path(base) / "here", Path(base) / "saved"
        os.environ["TACIT_CACHE"] = f"{folder}/cache"
        folder.mkdir()
        os.chdir(base)
        attacked = target.prepare(folder)
        sound = attacked.read_bytes()
        if (why := refusal(target, folder)) is not None:
            raise RuntimeError(f"{name}: the sound file was refused: {why}")
        if target.mends:
            shutil.copytree(folder, saved)
        before = _resident()
        resource.setrlimit(resource.RLIMIT_AS, (_virtual() + MEMORY, resource.RLIM_INFINITY))
        with open(progress, "a") as told:
            for number, content in enumerate(mutations(sound, count - start, start=start), start):
                if target.mends:
                    shutil.rmtree(folder)
                    shutil.copytree(saved, folder)
                attacked.write_bytes(content)
                line: dict[str, Any] = {"input": number, "refusal": None, "failure": ""}
                began = time.monotonic()
                signal.alarm(SECONDS)
                try:
                    line["refusal"] = refusal(target, folder)
                except BaseException:
                    line["failure"] = "".join(traceback.format_exception_only(*sys.exc_info()[:2])).strip()[-500:]
                signal.alarm(0)
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
                line |= {"seconds": round(time.monotonic() - began, 3), "mb": round(max(0.0, peak - before))}
                told.write(json.dumps(line) + "\n")
                told.flush()


def _resident() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _virtual() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


if __name__ == "__main__":
    _caged(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
