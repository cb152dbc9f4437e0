"""Building a store from JPEGs, beside Pillow decoding and resizing the same files on as many threads.

python benchmarks/store.py [--files 3000] [--pairs 5]

Both sides decode at a fraction of the size where JPEG allows it; Pillow's results are dropped, the store's are written,
with checksums. Goal: at least 0.9 of Pillow's speed.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from pairs import alternate, asked, keep, row, show, summary, times
from PIL import Image

EXTENT, SIDE = (375, 500), 192


def make(folder: Path, count: int) -> None:
    """Smooth pictures with some noise, as cameras take them."""
    generator = np.random.default_rng(0)
    folder.mkdir()
    noise = generator.integers(-12, 13, (*EXTENT, 3))
    for number in range(count):
        coarse = Image.fromarray(generator.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize(EXTENT[::-1], Image.Resampling.BICUBIC), np.int16)
        Image.fromarray((smooth + noise).clip(0, 255).astype(np.uint8)).save(folder / f"{number:05d}.jpg", quality=90)


def decode(path: Path) -> int:
    """One file as Pillow's manual has it."""
    with Image.open(path) as picture:
        scale = SIDE / min(picture.size)
        size = (round(picture.width * scale), round(picture.height * scale))
        picture.draft("RGB", size)
        return np.asarray(picture.convert("RGB").resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)).nbytes


def main() -> None:
    """Alternate both."""
    from tacit.data import store as stores
    from tacit.data.open import open_data
    from tacit.data.workers import processors

    words = asked(pairs=5, files=3000)
    with tempfile.TemporaryDirectory() as place:
        os.environ["TACIT_CACHE"] = f"{place}/cache"
        folder = Path(place) / "data"
        make(folder, words.files)
        paths, collection = sorted(folder.iterdir()), open_data(folder)

        def build() -> None:
            shutil.rmtree(Path(place) / "stores", ignore_errors=True)
            assert len(stores.build(collection, SIDE, Path(place) / "stores", 1 << 40)) == words.files

        def bare() -> None:
            with ThreadPoolExecutor(processors()) as threads:
                sum(threads.map(decode, paths))

        seconds = alternate({"store": build, "pillow": bare}, words.pairs)
    show(seconds)
    what = f"building a store of {words.files:,} JPEGs, {EXTENT[1]}x{EXTENT[0]} to {SIDE} pixels"
    rows = [row(what, "Pillow on as many threads", times(seconds, "store", "pillow"), most=1 / 0.9)]
    keep("store", {"rows": rows, "seconds": summary(seconds)})


if __name__ == "__main__":
    main()
