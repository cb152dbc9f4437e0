"""What a report shows of the samples themselves: some of them, the map, and the nearest neighbours of some."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tacit.core.draws import Order
from tacit.data.collection import Collection
from tacit.data.kinds.kind import thumbnail
from tacit.data.spec import Spec
from tacit.data.text.wording import COLUMN, captions_of
from tacit.use.maps import LARGEST, layout
from tacit.use.report import Found, Map, Neighbours, Place
from tacit.use.search import search

SIDE, LONGEST = 160, 640
"""Pixels that a sample's shorter side is decoded at, and that its picture has at most."""

POINTS = 2048
"""Of a cloud that turns: enough to see its shape, few enough to draw at once."""


@dataclass(frozen=True)
class Cloud:
    """Points to look at from all sides: uint8 `[N, 4]`, coordinates and a value; `valued` where that value means something."""

    points: np.ndarray
    valued: bool


@dataclass(frozen=True)
class Sample:
    """One sample: its picture (PNG) as its kind draws it, its path, what is said of it, and its points where it is a cloud."""

    picture: bytes
    path: str
    caption: str = ""
    cloud: Cloud | None = None


def samples_of(collection: Collection, rows: Sequence[int], spec: Spec, seed: int = 0, count: int = 6) -> list[Sample]:
    """Some of these rows, drawn with the seed, not picked. The rows have to be readable."""
    chosen = Order(seed, 0, len(rows), "report/samples")(torch.arange(min(count, len(rows)))).tolist()
    table, found = collection.index.table, []
    for row in sorted(rows[place] for place in chosen):
        decoded = collection.glance(row, SIDE)
        picture = thumbnail(collection.kind, decoded, LONGEST, spec.low, spec.high)
        said = captions_of(table, row) if collection.kind.name == "pair" and COLUMN in table.column_names else ()
        cloud = cloud_of(decoded) if spec.kind == "points" else None
        found.append(Sample(picture, collection.index.names[row], " / ".join(said), cloud))
    return found


def cloud_of(points: np.ndarray) -> Cloud:
    """A cloud `[N, 3 + F]` in a box of its own, but for the farthest hundredth of its points; its first feature by its rank."""
    points = points[:: -(-len(points) // POINTS)].astype(np.float64)
    low, high = np.percentile(points[:, :3], (0.5, 99.5), axis=0)
    unit = (points[:, :3] - (low + high) / 2) / max(float((high - low).max()), 1e-12) + 0.5
    inside = ((unit >= 0) & (unit <= 1)).all(axis=1)
    valued = points.shape[1] > 3
    value = points[:, 3] if valued else np.zeros(len(points))
    rank = value.argsort().argsort() / max(len(value) - 1, 1)
    return Cloud(np.rint(np.column_stack([unit, rank])[inside] * 255).astype(np.uint8), valued)


def rows_to_show(samples: int, seed: int) -> np.ndarray:
    """Which rows of the index the map shows: all, or 5,000 of them drawn with the seed; int64, rising."""
    order = Order(seed, 0, samples, "report/map")
    return np.sort(order(torch.arange(min(samples, LARGEST))).numpy())


def map_of(
    vectors: np.ndarray, thumbnails: Sequence[bytes], paths: Sequence[str], labels: Sequence[str | None], seed: int = 0
) -> Map:
    """The map of feature vectors `[N, D]` with their thumbnails (PNG, JPEG or WebP bytes); labels only colour the points."""
    arranged = layout(vectors, seed)
    rows = zip(arranged.points.tolist(), labels, thumbnails, paths, strict=True)
    return Map([Place(x, y, label, thumbnail, path) for (x, y), label, thumbnail, path in rows], arranged.method, arranged.note)


def neighbours_of(
    vectors: np.ndarray,
    thumbnails: Sequence[bytes],
    paths: Sequence[str],
    labels: Sequence[str | None],
    seed: int = 0,
    queries: int = 8,
    k: int = 7,
) -> list[Neighbours]:
    """The `k` nearest samples of `queries` samples drawn with the seed, not picked: what a reader may judge the run by."""
    count = len(vectors)
    if count < 2:
        return []
    asked = Order(seed, 0, count, "report/neighbours")(torch.arange(min(queries, count))).numpy()
    scores, rows = search(vectors[asked], vectors, k + 1)

    def found(row: int, score: float | None) -> Found:
        return Found(paths[row], thumbnails[row], score, labels[row])

    return [
        Neighbours(
            found(query, None), [found(r, float(s)) for r, s in zip(near, alike, strict=True) if r not in (query, -1)][:k]
        )
        for query, near, alike in zip(asked.tolist(), rows.tolist(), scores.tolist(), strict=True)
    ]
