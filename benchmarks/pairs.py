"""What every benchmark here does: both sides in one run, alternating, medians and spread, written down with the machine."""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tacit.core import files
from tacit.train.machine import describe

RESULTS = Path(__file__).parent / "results"


def alternate(sides: Mapping[str, Callable[[], object]], pairs: int = 5) -> dict[str, list[float]]:
    """Seconds of each side, `pairs` times in turn, after one round that is not counted."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(pairs + 1):
        for name, call in sides.items():
            start = time.perf_counter()
            call()
            if number:
                found[name].append(time.perf_counter() - start)
    return found


def summary(seconds: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Median, least and greatest of each side."""
    return {
        name: {"median": statistics.median(times), "least": min(times), "greatest": max(times)}
        for name, times in seconds.items()
    }


def keep(name: str, content: dict[str, Any]) -> None:
    """Write `results/NAME.json`, with the machine."""
    files.write_json(RESULTS / f"{name}.json", {"machine": describe(), **content})


def show(seconds: dict[str, list[float]]) -> None:
    """A line for each side."""
    for name, row in summary(seconds).items():
        print(f"{name:<28} {row['median']:8.3f} s  ({row['least']:.3f} to {row['greatest']:.3f})")


def asked(**values: int | str) -> argparse.Namespace:
    """What the command line says of these values (`--pairs 3`), each with its default."""
    words = argparse.ArgumentParser()
    for name, value in values.items():
        words.add_argument(f"--{name}", type=type(value), default=value)
    return words.parse_args()


def times(seconds: dict[str, list[float]], ours: str, theirs: str) -> list[float]:
    """How many times as long one side took as the other, pair by pair."""
    return [mine / other for mine, other in zip(seconds[ours], seconds[theirs], strict=True)]


def row(what: str, beside: str, values: list[float], most: float, unit: str = "times") -> dict[str, Any]:
    """A row of the table in `docs/speed.md`: what was measured, in what unit, and what it may be at the most."""
    found = {"what": what, "beside": beside, "unit": unit, "most": most, "pairs": len(values), **summary({"": values})[""]}
    print(f"{what}: {found['median']:.3g} {unit} (at most {most:.3g}) beside {beside}")
    return found


class Peer:
    """Another library's side, in an interpreter of its own: a script of `benchmarks/peers/` that waits for its turns.

    Between turns all its processes are stopped, so that neither a thread that spins nor a worker that prepares the next batch
    takes time from the other side, or makes ahead what would have to be waited for.

    Attributes:
        versions: of the libraries that it measures.
    """

    def __init__(self, *command: str) -> None:
        self.command = command
        # A group of its own in the same session: if this process is killed, the system ends what is stopped in that group.
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, preexec_fn=os.setpgrp)

    def __enter__(self) -> Peer:
        self.versions = self._said()
        self._signal(signal.SIGSTOP)
        return self

    def __call__(self) -> float:
        """One turn; the seconds per step that the other side counted, which `alternate` takes from its own clock."""
        self._signal(signal.SIGCONT)
        assert self.process.stdin is not None
        self.process.stdin.write("turn\n")
        self.process.stdin.flush()
        said = self._said()
        self._signal(signal.SIGSTOP)
        return said["seconds_per_step"]

    def __exit__(self, *problem: object) -> None:
        self._signal(signal.SIGKILL)
        self.process.wait()

    def _signal(self, number: int) -> None:
        os.killpg(self.process.pid, number)

    def _said(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        if line := self.process.stdout.readline():
            return json.loads(line)
        raise SystemExit(f"{self.command[0]} did not run {self.command[1]}; see above for why, and --python for another one")
