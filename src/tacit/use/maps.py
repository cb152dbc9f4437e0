"""A map of features in two dimensions: near on the map means alike to the encoder, far apart means little."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tacit.core.errors import TacitError

LARGEST = 5_000
"""How many points t-SNE arranges; further ones are placed among them."""


@dataclass(frozen=True)
class Layout:
    """Where every sample lies.

    Attributes:
        points: float32 `[N, 2]`, centred, the larger extent in `[-1, 1]`.
        method: `t-SNE` or `PCA`.
        note: what the reader of the map has to know about how it was made.
    """

    points: np.ndarray
    method: str
    note: str


def layout(vectors: np.ndarray, seed: int = 0) -> Layout:
    """Arrange feature vectors `[N, D]` by cosine similarity; the same vectors and seed give the same map.

    t-SNE by openTSNE (Policar, Strazar, Zupan 2019), started from principal components, with the extra `report`; without it, or
    for fewer than 20 samples, the two first principal components.
    """
    vectors = np.asarray(vectors, dtype=np.float64)
    if vectors.ndim != 2 or not np.isfinite(vectors).all():
        raise TacitError(f"vectors of shape {vectors.shape} were given; finite numbers [N, D] were expected for a map")
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors = vectors / np.maximum(lengths, 1e-12)
    anchors = np.unique(np.linspace(0, len(vectors) - 1, min(len(vectors), LARGEST)).round().astype(int))
    components = _principal(vectors, vectors[anchors])
    if len(vectors) < 20:
        return Layout(_framed(components), "PCA", "Principal components: with so few samples nothing finer can be said.")
    try:
        import openTSNE
    except ImportError:
        note = "Principal components, a coarse map; `pip install 'tacit[report]'` adds t-SNE, which shows groups."
        return Layout(_framed(components), "PCA", note)
    start = components[anchors] / max(components[anchors, 0].std(), 1e-12) * 1e-4
    arranged = openTSNE.TSNE(
        perplexity=min(30, (len(anchors) - 1) // 3),
        metric="euclidean",
        neighbors="exact",
        negative_gradient_method="bh" if len(anchors) < 2_000 else "fft",
        initialization=start,
        n_jobs=1,
        random_state=seed,
    ).fit(vectors[anchors])
    note = "t-SNE: what lies near is alike to the encoder; distances between groups and their sizes mean little."
    if len(anchors) == len(vectors):
        return Layout(_framed(np.asarray(arranged)), "t-SNE", note)
    points = np.empty((len(vectors), 2))
    others = np.setdiff1d(np.arange(len(vectors)), anchors)
    points[anchors] = arranged
    points[others] = arranged.transform(vectors[others])
    return Layout(_framed(points), "t-SNE", f"{note} {len(anchors):,} samples were arranged, the others placed among them.")


def _principal(vectors: np.ndarray, fitted: np.ndarray) -> np.ndarray:
    """Projections `[N, 2]` on the two directions of largest variance of `fitted`; their signs do not depend on the solver."""
    mean = fitted.mean(axis=0)
    _, axes = np.linalg.eigh((fitted - mean).T @ (fitted - mean))
    axes = axes[:, ::-1][:, :2]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    projected = (vectors - mean) @ axes
    return np.pad(projected, ((0, 0), (0, 2 - projected.shape[1])))


def _framed(points: np.ndarray) -> np.ndarray:
    low, high = points.min(axis=0), points.max(axis=0)
    return ((points - (low + high) / 2) / max((high - low).max() / 2, 1e-12)).astype(np.float32)
