"""The most memory that a run on very many rows holds, its samples in a store: `python benchmarks/memory.py [--rows 1000000]`.

The rows are those of a manifest over a few thousand small files. Goal: under 1.5 GB resident.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from pairs import asked, keep, row
from PIL import Image

FILES, SIDE = 2000, 16
IMPORTS = "import tacit.api, tacit.methods.simclr, lightning_fabric, faiss, sklearn"
RUN = """
import sys, tacit
options = {"encoder": "resnet-mini", "size": 16, "batch": 128, "precision": "float32", "store": "always"}
tacit.pretrain("simclr", sys.argv[1], out=sys.argv[2], steps=50, options=options)
"""
MOST = "\nimport resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"


def gigabytes(code: str, *words: str) -> float:
    """The most that a process of its own has held (on Linux, where it is counted in kB)."""
    done = subprocess.run([sys.executable, "-c", code + MOST, *words], stdout=subprocess.PIPE, text=True, check=True)
    return int(done.stdout.split()[-1]) * 1024 / 1e9


def main() -> None:
    """A run on all rows, one on a thousandth of them, and the imports alone."""
    rows = asked(rows=1_000_000).rows
    with tempfile.TemporaryDirectory() as place:
        os.environ["TACIT_CACHE"] = f"{place}/cache"
        pictures = Path(place) / "pictures"
        pictures.mkdir()
        generator = np.random.default_rng(0)
        for number in range(FILES):
            Image.fromarray(generator.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(pictures / f"{number:04d}.png")
        held = {}
        for count in (rows // 1000, rows):
            manifest = Path(place) / f"{count}.csv"
            lines = (f"pictures/{number % FILES:04d}.png,{number % 100}" for number in range(count))
            manifest.write_text("\n".join(["path,label", *lines]))
            held[count] = gigabytes(RUN, str(manifest), f"{place}/run{count}")
        bare = gigabytes(IMPORTS)
    print({**held, "imports": bare})
    table = [row(f"memory of a run on {rows:,} rows, store on disk", f"{bare:.2f} GB of imports", [held[rows]], 1.5, "GB")]
    keep("memory", {"rows": table, "gigabytes": {**{str(count): value for count, value in held.items()}, "imports": bare}})


if __name__ == "__main__":
    main()
