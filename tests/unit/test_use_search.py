from __future__ import annotations

import numpy as np
import pytest

from tacit.core.errors import TacitError
from tacit.use import search as module
from tacit.use.search import hits, search


@pytest.fixture
def vectors() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(600, 16)).astype(np.float32)


def brute_force(queries: np.ndarray, vectors: np.ndarray, k: int) -> np.ndarray:
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.argsort(-(queries / np.linalg.norm(queries, axis=1, keepdims=True)) @ unit.T, axis=1, kind="stable")[:, :k]


def test_exact_search_finds_what_comparing_with_everything_finds(vectors):
    scores, rows = search(vectors[:20], vectors, 5, "exact")
    assert np.array_equal(rows, brute_force(vectors[:20], vectors, 5))
    assert np.allclose(scores[:, 0], 1, atol=1e-5)
    assert (np.diff(scores, axis=1) <= 0).all()


def test_lengths_of_vectors_do_not_matter(vectors):
    lengths = np.random.default_rng(1).uniform(0.1, 10, (600, 1))
    assert np.array_equal(search(vectors[:9], vectors, 4)[1], search(vectors[:9] * 7, vectors * lengths, 4)[1])


@pytest.mark.parametrize("index", ["ivf", "hnsw"])
def test_approximate_indexes_find_most_neighbours(vectors, index):
    _, rows = search(vectors[:100], vectors, 5, index)
    expected = brute_force(vectors[:100], vectors, 5)
    found = np.mean([len(set(a) & set(b)) / 5 for a, b in zip(rows, expected, strict=True)])
    assert found > 0.85


def test_ivf_is_the_same_every_time(vectors):
    first, second = search(vectors[:50], vectors, 5, "ivf"), search(vectors[:50], vectors, 5, "ivf")
    assert np.array_equal(first[1], second[1])


def test_an_index_is_built_for_many_queries_in_many_vectors_alone(vectors, monkeypatch):
    built = []
    monkeypatch.setattr(module, "EXACT_UP_TO", 500)
    monkeypatch.setattr(module, "_ivf", lambda vectors: built.append(len(vectors)) or module._exact(vectors))
    search(vectors[:255], vectors, 5)
    search(vectors[:256], vectors[:500], 5)
    assert built == []
    search(vectors[:256], vectors, 5)
    assert built == [600]


def test_no_more_neighbours_than_there_are(vectors):
    assert search(vectors[0], vectors[:3], 10)[1].shape == (1, 3)


def test_hits_are_ranked_from_one_and_name_their_samples(vectors):
    (found,) = hits(*search(vectors[2], vectors[:3], 3), paths=["a", "b", "c"], ids=[10, 20, 30])
    assert [hit.rank for hit in found] == [1, 2, 3]
    assert (found[0].path, found[0].id) == ("c", 30)


def test_places_that_an_index_left_empty_are_no_hits():
    assert hits(np.array([[0.5, -9.0]]), np.array([[1, -1]]), ["a", "b"], [0, 1])[0][0].path == "b"
    assert len(hits(np.array([[0.5, -9.0]]), np.array([[1, -1]]), ["a", "b"], [0, 1])[0]) == 1


@pytest.mark.parametrize(
    ("queries", "vectors", "k", "index", "said"),
    [
        (np.ones((1, 3)), np.ones((5, 4)), 2, "exact", "3 features and the searched set 4"),
        (np.ones((1, 4)), np.ones((5, 4)), 0, "exact", "at least 1"),
        (np.ones((1, 4)), np.full((5, 4), np.nan), 2, "exact", "finite numbers"),
        (np.ones((1, 4)), np.ones((0, 4)), 2, "exact", "N > 0"),
        (np.ones((1, 4)), np.ones((5, 4)), 2, "hsnw", "did you mean 'hnsw'"),
    ],
)
def test_what_cannot_be_searched_is_refused(queries, vectors, k, index, said):
    with pytest.raises(TacitError, match=said):
        search(queries, vectors, k, index)
