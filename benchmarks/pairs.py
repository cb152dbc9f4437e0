"""What every benchmark here does: both sides in one run, alternating, medians and spread, written down with the machine."""

from __future__ import annotations

import argparse
import statistics
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


def asked(**values: int) -> argparse.Namespace:
    """What the command line says of these numbers (`--pairs 3`), each with its default."""
    words = argparse.ArgumentParser()
    for name, value in values.items():
        words.add_argument(f"--{name}", type=int, default=value)
    return words.parse_args()


def times(seconds: dict[str, list[float]], ours: str, theirs: str) -> list[float]:
    """How many times as long one side took as the other, pair by pair."""
    return [mine / other for mine, other in zip(seconds[ours], seconds[theirs], strict=True)]


def row(what: str, beside: str, values: list[float], most: float, unit: str = "times") -> dict[str, Any]:
    """A row of the table in `docs/speed.md`: what was measured, in what unit, and what it may be at the most."""
    found = {"what": what, "beside": beside, "unit": unit, "most": most, "pairs": len(values), **summary({"": values})[""]}
    print(f"{what}: {found['median']:.3g} {unit} (at most {most:.3g}) beside {beside}")
    return found
