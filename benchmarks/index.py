"""Listing a folder of very many files, beside `os.scandir` alone: `python benchmarks/index.py [--files 300000] [--pairs 5]`.

Goal: the first time within twice `os.scandir`, the second time under 0.3 s. An index needs size and time of every file, which
`os.scandir` alone does not ask for and which takes several times as long as it; so it is shown beside both.
"""

from __future__ import annotations

import io
import os
import shutil
import tempfile
import time
from pathlib import Path

from PIL import Image

from pairs import alternate, asked, keep, row, show, summary, times  # isort: skip

IN_A_FOLDER = 1000


def make(folder: Path, count: int) -> None:
    """Class folders of small pictures, all the same."""
    picture = io.BytesIO()
    Image.new("L", (8, 8)).save(picture, "PNG")
    for number in range(count):
        if number % IN_A_FOLDER == 0:
            (below := folder / f"class{number // IN_A_FOLDER:04d}").mkdir(parents=True)
        (below / f"{number:07d}.png").write_bytes(picture.getvalue())


def scan(path: str, facts: bool) -> int:
    """The files below a folder, by `os.scandir` alone; where `facts`, the size and time of each is asked for."""
    count = 0
    for entry in os.scandir(path):
        if entry.is_dir():
            count += scan(entry.path, facts)
        else:
            count += 1
            if facts:
                entry.stat()
    return count


def main() -> None:
    """Make the files, wait until the listing may be remembered, and time all three."""
    from tacit.data.open import open_data

    words = asked(pairs=5, files=300_000)
    with tempfile.TemporaryDirectory() as place:
        data, cache = Path(place) / "data", Path(place) / "cache"
        os.environ["TACIT_CACHE"] = str(cache)
        make(data, words.files)
        time.sleep(3)

        def first() -> None:
            shutil.rmtree(cache, ignore_errors=True)
            assert len(open_data(data)) == words.files

        sides = {
            "scandir": lambda: scan(str(data), facts=False),
            "scandir, stat": lambda: scan(str(data), facts=True),
            "first": first,
            "second": lambda: open_data(data),
        }
        seconds = alternate(sides, words.pairs)
    show(seconds)
    files = f"{words.files:,} files"
    rows = [
        row(f"opening {files} for the first time", "`os.scandir` alone", times(seconds, "first", "scandir"), most=2.0),
        row(
            f"opening {files} for the first time",
            "`os.scandir`, with size and time of each file",
            times(seconds, "first", "scandir, stat"),
            most=2.0,
        ),
        row(f"opening {files} again", "-", seconds["second"], most=0.3, unit="s"),
    ]
    keep("index", {"rows": rows, "seconds": summary(seconds)})


if __name__ == "__main__":
    main()
