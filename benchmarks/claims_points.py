"""The claims of PoLAr-MAE that can be seen on a few hundred SIMULATED particle events, and what it makes of scanned objects."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from claim import Claim, Figures, Run, probes
from numpy.typing import NDArray
from scipy.spatial import KDTree

import tacit
from tacit.core.draws import Draws
from tacit.data.open import open_data
from tacit.nn.points.encoder import PointTransformer
from tacit.nn.points.grouping import thin
from tacit.nn.points.sampling import farthest_points
from tacit.use.run import OpenRun

TITLE = "PoLAr-MAE (particle events are SIMULATED)"
UNLABELLED = 300
"""Events beside the 70 that have labels, from the same simulation."""

LOW_ENERGY = 4
"""Scattered points of this class are not judged, as published."""

LAST = 50
"""Steps whose losses are averaged."""


def events(folder: Path, out: Path) -> Path:
    """Clouds of voxels with their energy, and labels for each point of `lartpc_sim`: 50 events to train on, 20 to test on."""
    source, rows = folder / "lartpc_sim", []
    subprocess.run([sys.executable, source / "make_events.py", out / "more.npz", str(UNLABELLED), "1"], check=True)
    for name, file in (("event", source / "events.npz"), ("more", out / "more.npz")):
        with np.load(file) as packed:
            voxel, energy, label, offset = (packed[key] for key in ("voxel", "energy", "label", "offset"))
        for number, (start, end) in enumerate(pairwise(offset)):
            cloud, labels = f"{name}-{number}.npy", f"{name}-{number}-labels.npy" if name == "event" else ""
            np.save(out / cloud, np.column_stack([voxel[start:end], energy[start:end]]).astype(np.float32))
            if labels:
                known = label[start:end]
                np.save(out / labels, np.where(known == LOW_ENERGY, -1, known))
            rows.append((cloud, labels, "test" if labels and number >= 50 else "train"))
    return listed(out, ("path", "mask", "split"), rows)


def objects(folder: Path, out: Path) -> Path:
    """Clouds of 512 points: chairs, monitors, and one-sided scans of boxes and cylinders."""
    source = folder / "object_points"
    clouds = np.load(source / "points.npz")["points"]
    with (source / "manifest.csv").open() as known:
        rows = [(f"{row['index']}.npy", row["label"], row["split"]) for row in csv.DictReader(known)]
    for (name, *_), cloud in zip(rows, clouds, strict=True):
        np.save(out / name, cloud.astype(np.float32))
    return listed(out, ("path", "label", "split"), rows)


def listed(out: Path, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> Path:
    """A manifest of files that lie in a folder."""
    with (out / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return out / "manifest.csv"


def of_tokens(run: tacit.Run, data: str, seed: int) -> dict[str, float]:
    """F1 of the paper's support vector machines on tokens, and the last losses beside what is to be had without learning.

    The one token that is the same for all is itself not done learning after so few steps: no claim is made of it.
    """
    records = run.evaluate(data, protocols=["tokens"], seed=seed)
    found = {f"{r.metric} {r.encoder}".removesuffix(" run"): r.value for r in records if r.value is not None}
    with (run.path / "metrics.csv").open() as lines:
        last = list(csv.DictReader(lines))[-LAST:]
    names = [name for name in ("chamfer", "chamfer_of_one_token", "energy", "energy_of_the_mean") if last[0].get(name)]
    return found | {name: float(np.mean([float(row[name]) for row in last])) for name in names}


def with_tokens(run: tacit.Run, data: str, seed: int) -> dict[str, float]:
    """The same, and what the tokens themselves are: how many, and which share of the points lies in one of them."""
    return of_tokens(run, data, seed) | cut(run, data)


def cut(run: tacit.Run, data: str) -> dict[str, float]:
    """Of the labelled events: how the number of tokens follows that of points, and who covers them, before slots are cut."""
    opened = OpenRun(run.path)
    assert isinstance(opened.encoder, PointTransformer)
    radius, overlap = opened.encoder.radius, opened.encoder.cut["overlap"]
    numbers, covered = [], {"covered": [], "covered at 0.5": [], "covered by farthest": []}
    for cloud in clouds(opened, data):
        centres = {name: thin(cloud, radius, f, len(cloud)) for name, f in (("covered", overlap), ("covered at 0.5", 0.5))}
        count = len(centres["covered"])
        centres["covered by farthest"] = farthest_points(torch.from_numpy(cloud)[None], count)[0].numpy()
        numbers.append((len(cloud), count))
        for name, chosen in centres.items():
            covered[name].append((KDTree(cloud[chosen]).query(cloud)[0] < radius).mean())
    known = {"tokens follow points": float(np.corrcoef(np.array(numbers).T)[0, 1]), "a fixed number does": 0.0, "all": 1.0}
    return known | {name: float(np.mean(each)) for name, each in covered.items()}


def clouds(run: OpenRun, data: str) -> Iterator[NDArray[np.float64]]:
    """The labelled events as the encoder sees them, coordinates `[N, 3]` alone."""
    collection = open_data(data)
    masks = collection.index.strings("mask")
    assert masks is not None
    for batch in run.loader(collection):
        x = run.still(batch, Draws(0, 0, batch.ids), run.spec)
        for row, cloud, size in zip(batch.ids.tolist(), x, batch.sizes[:, 0].tolist(), strict=True):
            if masks[row]:
                yield cloud[:3, :size].T.double().numpy()


EVENTS: dict[str, Any] = {"encoder": "point-vit-micro", "size": 2882, "batch": 8, "precision": "float32", "held_back": 16}
OBJECTS: dict[str, Any] = EVENTS | {"size": 512, "batch": 16}


def run(options: dict[str, Any], figures: Figures = of_tokens) -> Run:
    return Run("polar-mae", "lartpc_sim", {"steps": 600}, EVENTS | options, figures, events)


RUNS = {
    "polar-mae": run({}, with_tokens),
    "polar-mae, no energy": run({"energy": 0.0}),
    "polar-mae, objects": Run("polar-mae", "object_points", {"steps": 1600}, OBJECTS, probes, objects),
}

OURS, OBJECT = "polar-mae", "polar-mae, objects"
CLAIMS = (
    Claim("PoLAr-MAE: pretraining helps a probe of tokens (F1)", (OURS, "f1"), (OURS, "f1 untrained"), 3),
    Claim("PoLAr-MAE: its tokens say more than their points do (F1)", (OURS, "f1"), (OURS, "f1 input")),
    Claim("PoLAr-MAE: it helps with ten labelled events (F1)", (OURS, "f1_10_samples"), (OURS, "f1_10_samples untrained")),
    Claim("PoLAr-MAE: predicting energies helps, too (F1)", (OURS, "f1"), ("polar-mae, no energy", "f1")),
    Claim("PoLAr-MAE: energies are told better than by their mean", (OURS, "energy_of_the_mean"), (OURS, "energy")),
    Claim("PoLAr-MAE: thinned centres cover all points at an overlap of 0.5", (OURS, "covered at 0.5"), (OURS, "all"), -0.1),
    Claim("PoLAr-MAE: at 0.72 more than as many farthest points do", (OURS, "covered"), (OURS, "covered by farthest")),
    Claim("PoLAr-MAE: tokens follow points (correlation)", (OURS, "tokens follow points"), (OURS, "a fixed number does"), 90),
    Claim("PoLAr-MAE: it beats the untrained encoder on objects, k-NN", (OBJECT, "knn"), (OBJECT, "knn untrained")),
    Claim("PoLAr-MAE: it beats raw points on objects, k-NN", (OBJECT, "knn"), (OBJECT, "knn input")),
    Claim("PoLAr-MAE: it beats the untrained encoder on objects, linear", (OBJECT, "linear"), (OBJECT, "linear untrained")),
    Claim("PoLAr-MAE: it beats raw points on objects, linear", (OBJECT, "linear"), (OBJECT, "linear input")),
)  # fmt: skip
