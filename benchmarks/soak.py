"""A long run with workers on good and broken files mixed: does memory, descriptors, threads or disk grow?

    python benchmarks/soak.py --minutes 45
    python benchmarks/soak.py --kind video --minutes 10

Pictures are made up; files of the other kinds are those of a bundled sample, over and over. The run is the command line in a
process of its own, with a checkpoint every 20 seconds and a check now and then. Every second its memory (resident, all its
processes together), open descriptors, threads and what it has on the disk are written down. The first third is warming up;
through the rest a line is fitted. Puts its row into `benchmarks/results/soak.json`, in place of an earlier one of that kind.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import layout
import numpy as np
from PIL import Image

from tacit.core import files
from tacit.data.open import open_data
from tacit.data.text.wording import captions_of
from tacit.train.machine import describe

RESULTS = Path(__file__).parent / "results" / "soak.json"
SMALL = {"size": 32, "batch": 64, "encoder": "resnet-mini", "precision": "float32", "held_back": 128}
KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "image": ("simclr", "", SMALL),
    "video": ("rspnet", "motion_sim", {}),
    "channels": ("chada-vit", "cells", {}),
    "points": ("polar-mae", "particle_events", {}),
    "volume": ("alice", "hearts_sim", {"partner": "position"}),
    "pair": ("clip", "emoji_names", {}),
}
"""What is trained, on which sample's files, with which options."""
NAMES = {"memory_mb": "memory, MB", "descriptors": "descriptors", "threads": "threads", "disk_mb": "disk, MB"}
WARM = 1 / 3
ROWS = 300
"""So many samples are kept for drawing curves."""


def pictures(count: int) -> Iterator[tuple[str, bytes]]:
    """Pictures of several formats and sizes: their names and what is in them."""
    draw = np.random.default_rng(0)
    for number in range(count):
        coarse = draw.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        width, height = draw.integers(40, 160, 2).tolist()
        written, form = io.BytesIO(), ("jpeg", "png", "tiff", "webp")[number % 4]
        Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(written, form)
        yield f"{number:05}.{form}", written.getvalue()


def copies(sample: str, count: int) -> Iterator[tuple[str, bytes]]:
    """The files of a bundled sample, each as often as it takes."""
    collection = open_data(f"sample:{sample}")
    for number in range(count):
        row = number % len(collection)
        payload = collection.read(row)
        assert not isinstance(payload, np.ndarray)
        name = Path(collection.index.path(row)).name
        yield f"{number:05}-{name}", payload if isinstance(payload, bytes) else payload.read_bytes()


def written(root: Path, found: Iterable[tuple[str, bytes]]) -> list[Path]:
    """The files in folders of a hundred; one in 25 is cut short, empty, or nothing of its kind."""
    draw, paths = np.random.default_rng(1), []
    for number, (name, content) in enumerate(found):
        if number % 25 == 7:
            content = (content[: len(content) // 2], b"", draw.bytes(500))[number // 25 % 3]
        paths.append(root / f"{number // 100:02}" / name)
        paths[-1].parent.mkdir(parents=True, exist_ok=True)
        paths[-1].write_bytes(content)
    return paths


def prepared(root: Path, kind: str, count: int) -> Path:
    """Data of a kind, and where it lies."""
    sample = KINDS[kind][1]
    paths = written(root, copies(sample, count) if sample else pictures(count))
    if kind != "pair":
        return root
    table = open_data(f"sample:{sample}").index.table
    said = [captions_of(table, number % len(table))[0] for number in range(count)]
    with open(root / "manifest.csv", "w", newline="") as target:
        csv.writer(target).writerows([("path", "caption"), *zip((path.relative_to(root) for path in paths), said, strict=True)])
    return root / "manifest.csv"


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


def soak(kind: str, minutes: float, count: int) -> dict[str, Any]:
    """Run, look on, and say what grew."""
    method, _, options = KINDS[kind]
    with tempfile.TemporaryDirectory(prefix="soak-") as scratch:
        root = Path(scratch)
        data = prepared(root / "data", kind, count)
        sets = [word for name, value in {"store": "never", **options}.items() for word in ("--set", f"{name}={value}")]
        line = ["pretrain", method, str(data), "--out", str(root / "run"), "--minutes", str(minutes), *sets]
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
        "kind": kind,
        "method": method,
        "minutes": round(rows[-1]["second"] / 60, 2),
        "steps": steps,
        "files": count,
        "skipped": skipped,
        "trends": trends,
        "disk_floor_mb": {"early": round(floors[0], 3), "late": round(floors[1], 3)},
        "samples": [{name: round(value, 2) for name, value in row.items()} for row in rows[:: max(1, len(rows) // ROWS)]],
    }


def table(runs: list[dict[str, Any]]) -> str:
    """Markdown: a line for each kind; level, and slope an hour with its error, of what may not grow."""
    lines = []
    for row in runs:
        trends = [row["trends"][name] for name in NAMES]
        held = [f"{t['level']:.0f} ({t['slope_per_hour']:+.1f} ± {t['error_per_hour']:.1f})" for t in trends]
        broken = f"{row['skipped']} of {row['files']:,}"
        lines.append([row["kind"], row["method"], f"{row['minutes']:.0f}", f"{row['steps']:,}", broken, *held])
    return layout.table(["kind", "method", "minutes", "steps", "files broken", *NAMES.values()], lines)


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
    words.add_argument("--kind", choices=list(KINDS), default="image")
    words.add_argument("--minutes", type=float, default=45)
    words.add_argument("--files", type=int, default=4000)
    words.add_argument("--out", type=Path, default=RESULTS)
    asked = words.parse_args()
    found = soak(asked.kind, asked.minutes, asked.files)
    before = json.loads(asked.out.read_text())["runs"] if asked.out.exists() else []
    runs = sorted(
        [*(row for row in before if row["kind"] != asked.kind), found], key=lambda row: list(KINDS).index(row["kind"])
    )
    files.write_json(asked.out, {"machine": describe(), "runs": runs})
    print(table(runs))


if __name__ == "__main__":
    main()
