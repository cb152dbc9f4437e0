from __future__ import annotations

import sys

import numpy as np
import pytest

from tacit.core.errors import TacitError
from tacit.use import maps
from tacit.use.maps import layout


def groups(per_group: int = 20, seed: int = 0) -> np.ndarray:
    draws = np.random.default_rng(seed)
    return np.repeat(np.eye(3, 10), per_group, axis=0) + 0.05 * draws.normal(size=(3 * per_group, 10))


def separation(points: np.ndarray, per_group: int = 20) -> float:
    """Smallest distance between groups' centres over the largest spread within one."""
    parts = points.reshape(3, per_group, 2)
    centres = parts.mean(axis=1)
    between = min(np.linalg.norm(centres[a] - centres[b]) for a in range(3) for b in range(a))
    return between / np.linalg.norm(parts - centres[:, None], axis=2).mean()


def test_groups_of_features_are_groups_on_the_map():
    arranged = layout(groups())
    assert arranged.method == "t-SNE"
    assert arranged.points.dtype == np.float32
    assert separation(arranged.points) > 3


def test_the_same_features_and_seed_give_the_same_map():
    assert np.array_equal(layout(groups(), seed=3).points, layout(groups(), seed=3).points)


def test_the_map_is_centred_and_fills_its_frame():
    points = layout(groups()).points
    assert np.abs(points).max() == pytest.approx(1, abs=1e-6)
    assert np.allclose(points.max(axis=0) + points.min(axis=0), 0, atol=1e-5)


def test_without_the_extra_the_map_is_of_principal_components_and_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "openTSNE", None)
    arranged = layout(groups())
    assert arranged.method == "PCA"
    assert "tacit[report]" in arranged.note
    assert separation(arranged.points) > 3


def test_samples_beyond_the_limit_are_placed_among_their_like(monkeypatch):
    monkeypatch.setattr(maps, "LARGEST", 30)
    arranged = layout(groups())
    assert arranged.points.shape == (60, 2)
    assert "30 samples were arranged" in arranged.note
    assert separation(arranged.points) > 2


@pytest.mark.parametrize("vectors", [np.ones((1, 5)), np.ones((40, 5)), np.zeros((3, 1)), np.eye(25, 1)])
def test_degenerate_features_still_have_a_map(vectors):
    points = layout(vectors).points
    assert points.shape == (len(vectors), 2)
    assert np.isfinite(points).all()


def test_features_that_are_not_finite_are_refused():
    with pytest.raises(TacitError, match="finite"):
        layout(np.full((5, 3), np.nan))
