"""A long run with workers on good and broken files mixed: does memory, descriptors, threads or disk grow?

    python benchmarks/soak.py --minutes 45

The run is the command line in a process of its own, with a checkpoint every 20 seconds and a check now and then. Every second
its memory (resident, all its processes together), open descriptors, threads and what it has on the disk are written down.
The first third is warming up; through the rest a line is fitted. Writes `benchmarks/results/soak.json`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tacit.core import files
from tacit.train.machine import describe

RESULTS = Path(__file__).parent / "results" / "soak.json"
OPTIONS = {"store": "never", "size": 32, "batch": 64, "encoder": "resnet-mini", "precision": "float32", "held_back": 128}
NAMES = ("memory_mb", "descriptors", "threads", "disk_mb")
WARM = 1 / 3
ROWS = 300
"""So many samples are kept for drawing curves."""


def pictures(root: Path, count: int) -> None:
    """Pictures of several formats and sizes; one in 25 is cut short, empty, or no picture at all."""
    draw = np.random.default_rng(0)
    for number in range(count):
        coarse = draw.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        size = tuple(int(side) for side in draw.integers(40, 160, 2))
        path = root / f"{number % 40:02}" / f"{number:05}{('.jpg', '.png', '.tif', '.webp')[number % 4]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path)
        if number % 25 == 7:
            content = path.read_bytes()
            path.write_bytes((content[: len(content) // 2], b"", draw.bytes(500))[number // 25 % 3])


def tree(process: int) -> list[int]:
    """A process and all below it."""
    found = [process]
    for number in found:
        for task in _listed(f"/proc/{number}/task"):
            try:
                found += map(int, Path(f"/proc/{number}/task/{task}/children").read_text().split())
            except OSError:  # it has ended
                continue
    return found


def sample(process: int, folders: list[Path]) -> dict[str, float]:
    """What a process tree holds at the moment."""
    memory = descriptors = threads = 0
    for number in tree(process):
        try:
            fields = dict(line.split(":", 1) for line in Path(f"/proc/{number}/status").read_text().splitlines())
        except OSError:
            continue
        memory += int(fields.get("VmRSS", "0 kB").split()[0])
        threads += int(fields["Threads"])
        descriptors += len(_listed(f"/proc/{number}/fd"))
    disk = sum(size for folder in folders for size in _sizes(folder))
    return {"memory_mb": memory / 2**10, "descriptors": descriptors, "threads": threads, "disk_mb": disk / 2**20}


def trend(seconds: np.ndarray, values: np.ndarray) -> dict[str, float]:
    """A straight line through samples: level, slope and its standard error by hour, growth over the time, the extremes."""
    x = seconds - seconds.mean()
    slope = float((x * (values - values.mean())).sum() / (x**2).sum())
    rest = values - values.mean() - slope * x
    # Neighbouring samples say the same: the error is that of as many samples as there are minutes.
    independent = max(3.0, float(seconds[-1] - seconds[0]) / 60)
    error = float(np.sqrt((rest**2).mean() / independent) / x.std())
    return {
        "level": round(float(values.mean()), 2),
        "slope_per_hour": round(3600 * slope, 3),
        "error_per_hour": round(3600 * error, 3),
        "growth": round(slope * float(seconds[-1] - seconds[0]), 3),
        "least": round(float(values.min()), 2),
        "greatest": round(float(values.max()), 2),
    }


def soak(minutes: float, count: int) -> dict[str, Any]:
    """Run, look on, and say what grew."""
    with tempfile.TemporaryDirectory(prefix="soak-") as scratch:
        root = Path(scratch)
        pictures(root / "data", count)
        sets = [word for name, value in OPTIONS.items() for word in ("--set", f"{name}={value}")]
        line = ["pretrain", "simclr", str(root / "data"), "--out", str(root / "run"), "--minutes", str(minutes), *sets]
        line += ["--checkpoint-every", "20s", "--stop-on", "none", "--device", "cpu"]
        around = {**os.environ, "TACIT_CACHE": str(root / "cache"), "TMPDIR": str(root / "tmp")}
        (root / "tmp").mkdir()
        with open(root / "said.txt", "w") as said:
            run = subprocess.Popen([sys.executable, "-m", "tacit.cli", *line], env=around, stdout=said, stderr=said)
        start, rows = time.monotonic(), []
        while run.poll() is None:
            at = time.monotonic()
            row = {"second": at - start, **sample(run.pid, [root / name for name in ("run", "cache", "tmp")])}
            if (root / "run" / "checkpoints" / "last.pt").exists() and run.poll() is None:
                rows.append(row)
            time.sleep(max(0.0, 1 - (time.monotonic() - at)))
        if run.returncode:
            raise SystemExit(f"the run ended with {run.returncode}:\n{(root / 'said.txt').read_text()[-2000:]}")
        steps = int((root / "run" / "metrics.csv").read_text().splitlines()[-1].split(",")[0]) + 1
        skipped = (root / "run" / "skipped.tsv").read_text().count("\n") - 1
    settled = [row for row in rows if row["second"] > WARM * rows[-1]["second"]]
    seconds = np.array([row["second"] for row in settled])
    trends = {name: trend(seconds, np.array([row[name] for row in settled])) for name in NAMES}
    # A checkpoint is written beside the one before: of the disk, what lies there at the least tells.
    third = len(settled) // 3
    floors = [min(row["disk_mb"] for row in part) for part in (settled[:third], settled[-third:])]
    return {
        "minutes": round(rows[-1]["second"] / 60, 2),
        "steps": steps,
        "files": count,
        "skipped": skipped,
        "trends": trends,
        "disk_floor_mb": {"early": round(floors[0], 3), "late": round(floors[1], 3)},
        "samples": [{name: round(value, 2) for name, value in row.items()} for row in rows[:: max(1, len(rows) // ROWS)]],
    }


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _sizes(folder: Path) -> list[int]:
    found = []
    for path in folder.rglob("*"):
        try:
            found.append(path.stat().st_size)
        except OSError:  # it was there a moment ago
            continue
    return found


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--minutes", type=float, default=45)
    words.add_argument("--files", type=int, default=4000)
    words.add_argument("--out", type=Path, default=RESULTS)
    asked = words.parse_args()
    found = soak(asked.minutes, asked.files)
    files.write_json(asked.out, {"machine": describe(), **found})
    print(f"{found['minutes']} minutes, {found['steps']} steps, {found['skipped']} of {found['files']} files skipped")
    for name, row in found["trends"].items():
        print(f"{name:<12} {row['level']:10.2f}  {row['slope_per_hour']:+9.3f} +- {row['error_per_hour']:.3f} an hour")


if __name__ == "__main__":
    main()
