"""Films: of real garments whose motions are SIMULATED, and real ones of signed words, unpacked.

    python benchmarks/moving.py DATA OUT

DATA is the folder that `fashion_mnist_sprite` and `asl_clips` lie in; OUT gets `moving_garments` and `signs`, for
`claims.py video OUT`. What moves, where to and how fast are drawn apart from each other.
A coloured garment slides over a plain ground, and what leaves a frame on one side comes back on the other. A single frame says
what moves, and nothing of where to.
"""

from __future__ import annotations

import argparse
import csv
import zipfile
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

GARMENTS = ("bag", "dress", "sneaker", "trouser")
WAYS = ("right", "down right", "down", "down left", "left", "up left", "up", "up right")
COLUMNS = ("motion", "garment", "both")
FILMS = {"train": 800, "test": 240}
FRAMES, SIDE = 16, 32
"""Of a film, and of a frame in pixels; garments have 28."""

SLOWEST, FASTEST = 0.5, 2.0
"""Pixels from frame to frame: played twice as fast, half of the films are no faster than others as they are."""

TENTH = 80
"""The first films, ten of every motion."""


def garments(folder: Path, out: Path) -> None:
    """Write films, a manifest of `all` of them, and one of a `tenth` of those to train on beside all test films.

    Manifests have the columns motion, garment, and both in one.
    """
    out.mkdir(parents=True)
    source, generator = folder / "fashion_mnist_sprite", np.random.default_rng(0)
    images = np.load(source / "images.npz")["images"]
    with (source / "manifest.csv").open() as file:
        known = [(row["label"], row["split"]) for row in csv.DictReader(file)]
    rows: dict[str, list[tuple[str, ...]]] = {split: [] for split in FILMS}
    for split, count in FILMS.items():
        places = [place for place, (label, of) in enumerate(known) if of == split and label in GARMENTS]
        for number, place in enumerate(generator.choice(places, count)):
            (garment, _), way, path = known[place], WAYS[number % len(WAYS)], f"{split}-{number}.mov"
            write(out / path, frames(images[place], number, generator))
            rows[split].append((path, split, way, garment, f"{garment} {way}"))
    for name, count in (("all", FILMS["train"]), ("tenth", TENTH)):
        with (out / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("path", "split", *COLUMNS), *rows["train"][:count], *rows["test"]])


def signs(folder: Path, out: Path) -> None:
    """Unpack the films of `asl_clips`, and say who signs in each."""
    with zipfile.ZipFile(folder / "asl_clips" / "clips.zip") as packed:
        packed.extractall(out)
    with (folder / "asl_clips" / "manifest.csv").open() as known, (out / "all.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "signer"), *((row["file"], row["signer"]) for row in csv.DictReader(known))])


def frames(garment: NDArray[np.uint8], number: int, generator: np.random.Generator) -> NDArray[np.uint8]:
    """`[T, H, W, 3]`: one garment on its way, which the number says; its speed, place and colours are drawn."""
    shape = np.pad(garment / 255, (0, SIDE - len(garment)))
    angle, speed = 2 * np.pi * number / len(WAYS), SLOWEST * (FASTEST / SLOWEST) ** generator.uniform()
    step, start = speed * np.array([np.sin(angle), np.cos(angle)]), generator.uniform(0, SIDE, 2)
    ground, colour = generator.uniform(20, 110, 3), generator.uniform(130, 255, 3)
    places = np.rint(start + step * np.arange(FRAMES)[:, None]).astype(int)
    shapes = np.stack([np.roll(shape, tuple(place), (0, 1)) for place in places])[..., None]
    return (ground * (1 - shapes) + colour * shapes).astype(np.uint8)


def write(path: Path, frames: NDArray[np.uint8]) -> None:
    """A film without loss."""
    with av.open(str(path), "w") as film:
        stream = film.add_stream("png", rate=10, options={"compression_level": "1"})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "rgb24"
        for frame in frames:
            film.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        film.mux(stream.encode())


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("folder", type=Path, help="where the sets lie")
    words.add_argument("out", type=Path, help="where the new one is to lie")
    asked = words.parse_args()
    garments(asked.folder, asked.out / "moving_garments")
    signs(asked.folder, asked.out / "signs")


if __name__ == "__main__":
    main()
