"""Clouds, pictures and volumes small enough to be judged place by place, and encoders to read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from tacit.data.spec import Batch, Spec
from tacit.evaluation.dense import reader
from tacit.evaluation.dense_grid import GridReader
from tacit.evaluation.dense_points import PointReader
from tacit.nn import build

CLOUDS = Spec("points", 4, (60,), 0.0, 1.0, (0.0, 0.0, 0.0, 0.5), (0.6, 0.6, 0.6, 0.3))
SMALL: dict[str, Any] = {"radius": 0.1, "width": 16, "depth": 3, "heads": 2, "hidden": (4, 8), "slots": 8, "norm": "token"}


def event(number: int) -> tuple[np.ndarray, np.ndarray]:
    """A straight track of weak points and a blob of strong ones, mixed: `[N, 4]` and which is which."""
    random = np.random.default_rng(number)
    track = np.linspace(-1, 1, 30 + number % 4)[:, None] * random.normal(size=3) / 2
    blob = random.normal(size=(24, 3)) / 8 + random.uniform(-0.5, 0.5, 3)
    points = np.concatenate([track, blob])
    labels = np.repeat([1, 2], [len(track), len(blob)])
    strength = 0.3 * labels + random.normal(size=len(labels)) / 8
    order = random.permutation(len(labels))
    return np.c_[points, strength][order].astype(np.float32), labels[order]


def events(folder: Path, count: int = 16, seed: int | None = None) -> Path:
    """Events and their labels; with a seed, the labels of all points are shuffled."""
    lines = ["path,mask,split"]
    for number in range(count):
        points, labels = event(number)
        np.save(folder / f"{number}.npy", points)
        if seed is not None:
            labels = np.random.default_rng(seed + number).permutation(labels)
        np.save(folder / f"{number}.label.npy", labels)
        lines.append(f"{number}.npy,{number}.label.npy,{'test' if number % 4 == 3 else 'train'}")
    (folder / "events.csv").write_text("\n".join(lines))
    return folder / "events.csv"


def clouds(count: int = 3) -> Batch:
    return Batch.padded(torch.arange(count), [event(number)[0].T.copy() for number in range(count)])


def cloud_reader() -> PointReader:
    encoder = build.encoder(name="point-vit-micro", channels=4, size=(60,), **SMALL).eval()
    found = reader(encoder, CLOUDS, (60,))
    assert isinstance(found, PointReader)
    return found


GRIDS = {
    "swin3d-micro": (Spec("volume", 1, (20, 20, 20), 0.0, 255.0, (0.4,), (0.2,)), (16, 16, 16)),
    "vit-micro/4": (Spec("image", 3, (20, 20), 0.0, 255.0, (0.4,), (0.2,)), (16, 16)),
    "resnet-mini": (Spec("image", 3, (20, 20), 0.0, 255.0, (0.4,), (0.2,)), (16, 16)),
}


def grid_reader(name: str, raw: bool = False) -> GridReader:
    spec, extent = GRIDS[name]
    size = extent if spec.kind == "volume" else extent[0]
    encoder = build.encoder(name=name, channels=spec.channels, size=size).eval()
    found = reader(encoder, spec, extent, raw)
    assert isinstance(found, GridReader)
    return found


def grids(name: str, *sizes: tuple[int, ...]) -> Batch:
    spec, _ = GRIDS[name]
    random = np.random.default_rng(0)
    return Batch.padded(
        torch.arange(len(sizes)), [random.integers(0, 256, (spec.channels, *size), dtype=np.uint8) for size in sizes]
    )
