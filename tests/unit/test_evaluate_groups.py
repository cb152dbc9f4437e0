"""Retrieval and clustering: against brute force, scikit-learn and chance."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score

from tacit.evaluation import neighbours
from tacit.evaluation.clustering import clustering, matched_accuracy
from tacit.evaluation.features import Labelled
from tacit.evaluation.retrieval import retrieval, retrieve


def blobs(samples: int = 300, classes: int = 5, distance: float = 0.7) -> Labelled:
    generator = torch.Generator().manual_seed(1)
    y = torch.arange(samples) % classes
    x = torch.randn(classes, 8, generator=generator)[y] * distance + torch.randn(samples, 8, generator=generator)
    half = samples // 2
    return Labelled(x[:half], y[:half], x[half:], y[half:], tuple("abcde"[:classes]))


def test_average_precision_is_that_of_scikit_learn_and_recall_that_of_brute_force():
    data = blobs()
    cosine = (F.normalize(data.test_x) @ F.normalize(data.train_x).T).numpy()
    right = (data.test_y[:, None] == data.train_y).numpy()
    found = retrieve(data.test_x, data.test_y, data.train_x, data.train_y)
    assert found["map"] == pytest.approx(np.mean([average_precision_score(r, c) for r, c in zip(right, cosine, strict=True)]))
    for k in (1, 5, 10):
        hits = [r[np.argsort(-c)[:k]].any() for r, c in zip(right, cosine, strict=True)]
        assert found[f"recall@{k}"] == pytest.approx(np.mean(hits))
    assert found["queries"] == 150


def test_retrieval_in_small_blocks_is_retrieval(monkeypatch: pytest.MonkeyPatch):
    data = blobs()
    whole = retrieval(data)
    monkeypatch.setattr(neighbours, "BLOCK", 500)
    assert retrieval(data).values == pytest.approx(whole.values)


def test_within_one_set_a_sample_does_not_find_itself():
    x = torch.eye(4)
    assert retrieve(x, torch.arange(4), x, torch.arange(4), itself=True) == {"queries": 0}
    pairs = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
    found = retrieve(pairs, torch.tensor([0, 0, 1, 1]), pairs, torch.tensor([0, 0, 1, 1]), itself=True)
    assert found["map"] == found["recall@1"] == 1


def test_queries_of_a_class_that_the_gallery_lacks_are_not_counted():
    x = torch.eye(3)
    found = retrieve(x, torch.tensor([0, 1, 7]), x, torch.tensor([0, 1, 2]))
    assert (found["queries"], found["recall@1"]) == (2, 1)


def test_where_train_and_test_share_no_class_test_is_searched():
    data = blobs()
    found = retrieval(replace(data, train_y=data.train_y * 0 + 4, test_y=data.test_y % 4))
    assert found.detail["gallery"].startswith("test")
    assert found.values["recall@1"] > 0.3


def test_shuffled_labels_retrieve_and_cluster_by_chance():
    data = blobs(samples=2000)
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    wrong = replace(data, train_y=data.train_y[order], test_y=data.test_y[order])
    assert retrieval(wrong).values["recall@1"] == pytest.approx(0.2, abs=0.05)
    assert retrieval(wrong).values["map"] == pytest.approx(0.2, abs=0.02)
    assert clustering(wrong).values["ari"] == pytest.approx(0, abs=0.01)
    assert clustering(wrong).values["nmi"] == pytest.approx(0, abs=0.02)


def test_clusters_that_are_the_classes_are_found_right():
    assert all(value == 1 for value in clustering(blobs(distance=20)).values.values())


def test_matching_is_the_best_of_all_permutations():
    generator = np.random.default_rng(0)
    y, clusters = generator.integers(0, 4, 60), generator.integers(0, 4, 60)
    best = max(np.mean(np.array(order)[clusters] == y) for order in permutations(range(4)))
    assert matched_accuracy(clusters, y) == pytest.approx(best)


def test_names_of_clusters_do_not_matter():
    y = np.array([0, 0, 1, 1, 2])
    assert matched_accuracy((y + 1) % 3, y) == 1


def test_the_same_seed_gives_the_same_clusters():
    assert clustering(blobs(), seed=4) == clustering(blobs(), seed=4)


def test_constant_features_are_one_cluster():
    data = blobs()
    found = clustering(replace(data, train_x=torch.ones(150, 8), test_x=torch.ones(150, 8)))
    assert found.detail["clusters"] == 1
    assert found.values == {"nmi": 0, "ari": 0, "accuracy": pytest.approx(0.2)}
