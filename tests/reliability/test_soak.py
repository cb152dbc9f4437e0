"""What runs for a week must not grow: memory, descriptors, threads, disk. `benchmarks/soak.py` is the long form."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path

import pytest
from tests.reliability.conftest import write_photos
from tests.reliability.runs import train

from tacit.data.loader import Loader
from tacit.data.open import open_data

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "soak.py"


def held() -> tuple[int, int]:
    """Descriptors and threads of this process."""
    gc.collect()
    return len(os.listdir("/proc/self/fd")), threading.active_count()


@pytest.mark.parametrize("store", ["never", "always"])
def test_runs_leave_no_descriptor_and_no_thread_behind(tmp_path: Path, store: str) -> None:
    photos = write_photos(tmp_path / "photos", 80, (5, 60))
    train(tmp_path / "first", photos, steps=2, store=store)
    descriptors, threads = held()
    for name in ("second", "third"):
        train(tmp_path / name, photos, steps=2, store=store)
    deadline = time.monotonic() + 20
    while held()[1] > threads and time.monotonic() < deadline:
        time.sleep(0.05)  # threads take a moment to see that nobody needs them
    assert held()[0] <= descriptors
    assert held()[1] <= threads


def test_memory_stays_flat_over_hundreds_of_batches_with_broken_files(tmp_path: Path) -> None:
    photos = open_data(write_photos(tmp_path / "photos", 64, (3, 20, 41)))
    loader = Loader(photos, None, None, 16, 0, side=16, max_bad=0.1)
    sizes = []
    tracemalloc.start()
    try:
        for step, batch in enumerate(loader.ahead(0, 240)):
            assert len(batch) == 16
            if step in (80, 239):
                del batch
                gc.collect()
                sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert sizes[1] - sizes[0] < 200_000  # three batches under way, more or less
    assert len(loader.skipped) == 3


@pytest.mark.slow
def test_a_minute_of_training_on_good_and_broken_files_leaks_nothing(tmp_path: Path) -> None:
    line = [sys.executable, str(SCRIPT), "--minutes", "1", "--files", "1000", "--out", str(tmp_path / "soak.json")]
    done = subprocess.run(line, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
    (found,) = json.loads((tmp_path / "soak.json").read_text())["runs"]
    trends, floors = found["trends"], found["disk_floor_mb"]
    assert found["skipped"] > 0
    assert trends["memory_mb"]["growth"] < 0.05 * trends["memory_mb"]["level"]
    assert trends["threads"]["growth"] < 3
    assert trends["descriptors"]["growth"] < 3
    assert floors["late"] - floors["early"] < 0.5
