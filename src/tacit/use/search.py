"""Nearest samples by cosine similarity, with faiss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tacit.core.errors import TacitError, nearest

INDEXES = ("auto", "exact", "ivf", "hnsw")
EXACT_UP_TO = 100_000
"""Vectors up to which `auto` compares with every one of them."""

WORTH_AN_INDEX = 256
"""Queries at once below which building an index for them takes longer than comparing with everything."""


@dataclass(frozen=True)
class Hit:
    """One found sample: its place among the results (from 1), cosine similarity in `[-1, 1]`, path, and id in the index."""

    rank: int
    score: float
    path: str
    id: int


def search(queries: np.ndarray, vectors: np.ndarray, k: int, index: str = "auto") -> tuple[np.ndarray, np.ndarray]:
    """The `k` vectors nearest to each query.

    Args:
        queries: `[Q, D]`, what is looked for.
        vectors: `[N, D]`, what is searched.
        k: how many; no more than N are returned.
        index: `exact` compares with every vector; `ivf` (k-means cells, the nearest sixteenth searched) and `hnsw` (a graph)
            are faster for many queries in large sets, and may miss a neighbour; `auto` is `ivf` from 256 queries in more than
            100,000 vectors on, else exact.

    Returns:
        Cosine similarities float32 `[Q, k]` in falling order, and rows of `vectors` int64 `[Q, k]` (-1 where an approximate
        index found fewer than k).
    """
    if index not in INDEXES:
        raise TacitError(f"unknown index '{index}'{nearest(index, INDEXES)}; one of {', '.join(INDEXES)} was expected")
    if k < 1:
        raise TacitError(f"{k} neighbours were asked for; at least 1 was expected")
    queries, vectors = _unit(queries, "queries"), _unit(vectors, "vectors")
    if queries.shape[1] != vectors.shape[1]:
        raise TacitError(
            f"the query has {queries.shape[1]} features and the searched set {vectors.shape[1]}; embed both with the same run"
        )
    if index == "auto":
        index = "ivf" if len(vectors) > EXACT_UP_TO and len(queries) >= WORTH_AN_INDEX else "exact"
    built = {"exact": _exact, "ivf": _ivf, "hnsw": _hnsw}[index](vectors)
    return built.search(queries, min(k, len(vectors)))


def hits(scores: np.ndarray, rows: np.ndarray, paths: Sequence[str], ids: Sequence[int] | np.ndarray) -> list[list[Hit]]:
    """What `search` found, as records for people: one list of hits per query."""
    return [
        [
            Hit(rank, float(score), str(paths[row]), int(ids[row]))
            for rank, (score, row) in enumerate(zip(*found, strict=True), 1)
            if row >= 0
        ]
        for found in zip(scores, rows, strict=True)
    ]


def _unit(vectors: np.ndarray, what: str) -> np.ndarray:
    vectors = np.atleast_2d(np.asarray(vectors, dtype=np.float32))
    if vectors.ndim != 2 or len(vectors) == 0 or not np.isfinite(vectors).all():
        raise TacitError(f"{what} of shape {vectors.shape} were given; finite numbers [N, D] with N > 0 were expected")
    return np.ascontiguousarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))


def _exact(vectors: np.ndarray) -> Any:
    import faiss

    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)  # pyright: ignore[reportCallIssue]
    return index


def _ivf(vectors: np.ndarray) -> Any:
    import faiss

    # faiss asks for 39 vectors per cell to place it well; four cells per root of N keeps cell and list searches of one cost.
    cells = max(1, min(len(vectors) // 39, 4 * int(len(vectors) ** 0.5)))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(vectors.shape[1]), vectors.shape[1], cells, faiss.METRIC_INNER_PRODUCT)
    index.cp.seed = 0
    index.train(vectors)  # pyright: ignore[reportCallIssue]
    index.add(vectors)  # pyright: ignore[reportCallIssue]
    index.nprobe = max(8, cells // 16)
    return index


def _hnsw(vectors: np.ndarray) -> Any:
    import faiss

    index = faiss.IndexHNSWFlat(vectors.shape[1], 32, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction, index.hnsw.efSearch = 80, 128
    index.add(vectors)  # pyright: ignore[reportCallIssue]
    return index
