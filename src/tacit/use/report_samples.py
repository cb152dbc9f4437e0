"""What a report shows of the samples themselves: the map, and the nearest neighbours of some of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from tacit.core.draws import Order
from tacit.use.maps import LARGEST, layout
from tacit.use.report import Found, Map, Neighbours, Place
from tacit.use.search import search


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
