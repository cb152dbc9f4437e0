"""What holding on to freed memory is worth to a step on a processor: `python benchmarks/allocator.py`.

Each side is a process of its own, since an allocator cannot be set back. See `tacit/core/allocator.py`.
"""

from __future__ import annotations

import subprocess
import sys

from pairs import keep, show, summary

STEP = """
import sys, time, torch
from tacit.core.allocator import keep_freed_memory
from tacit.nn import build
if sys.argv[1] == "kept":
    keep_freed_memory()
encoder = build.encoder("resnet-mini", 3, 32).to(memory_format=torch.channels_last)
x = torch.rand(512, 3, 32, 32).to(memory_format=torch.channels_last)
times = []
for _ in range(6):
    start = time.perf_counter()
    encoder(x).pooled.square().mean().backward()
    times.append(time.perf_counter() - start)
print(sorted(times[1:])[2])
"""


def main() -> None:
    """Five pairs of processes, in turn."""
    seconds: dict[str, list[float]] = {"returned": [], "kept": []}
    for _ in range(5):
        for side, times in seconds.items():
            done = subprocess.run([sys.executable, "-c", STEP, side], capture_output=True, text=True, check=True)
            times.append(float(done.stdout))
    show(seconds)
    keep("allocator", {"seconds": summary(seconds)})


if __name__ == "__main__":
    main()
