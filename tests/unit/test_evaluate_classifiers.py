"""k-NN, linear probe and few labels: against scikit-learn, against chance, and against themselves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score, top_k_accuracy_score
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from tacit.evaluation import neighbours
from tacit.evaluation.features import Labelled
from tacit.evaluation.fewshot import fewshot
from tacit.evaluation.knn import knn, votes
from tacit.evaluation.linear import RATES, linear, train_linear
from tacit.evaluation.neighbours import nearest
from tacit.evaluation.outcome import accuracies


def blobs(samples: int = 600, width: int = 40, classes: int = 7, distance: float = 0.5) -> Labelled:
    generator = torch.Generator().manual_seed(3)
    y = torch.arange(samples) % classes
    centres = torch.randn(classes, width, generator=generator) * distance
    # Directions that differ a thousandfold in variance, as features have them.
    x = (centres[y] + torch.randn(samples, width, generator=generator)) * torch.logspace(0, -1.5, width)
    half = samples // 2
    return Labelled(x[:half], y[:half], x[half:], y[half:], tuple("abcdefghijkl"[:classes]))


def shuffled(data: Labelled) -> Labelled:
    order = torch.randperm(len(data.train_y), generator=torch.Generator().manual_seed(0))
    return replace(data, train_y=data.train_y[order])


def assert_chance(top1: float, data: Labelled) -> None:
    chance = 1 / len(data.classes)
    assert abs(top1 - chance) < 4 * (chance * (1 - chance) / len(data.test_y)) ** 0.5


def test_accuracies_are_those_of_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(300, 7, generator=generator)
    y = torch.randint(0, 20, (300,), generator=generator) % 7  # some classes have more samples than others
    found = accuracies(scores, y)
    assert found["top1"] == pytest.approx(accuracy_score(y, scores.argmax(1)))
    assert found["top5"] == pytest.approx(top_k_accuracy_score(y, scores, k=5))
    assert found["balanced"] == pytest.approx(balanced_accuracy_score(y, scores.argmax(1)))


def test_five_guesses_are_not_counted_among_five_classes():
    assert "top5" not in accuracies(torch.eye(5), torch.arange(5))


def test_knn_votes_are_those_of_scikit_learn():
    data = blobs()
    model = KNeighborsClassifier(20, metric="cosine", weights=lambda d: np.exp((1 - d) / 0.07))
    model.fit(data.train_x.double().numpy(), data.train_y.numpy())
    expected = torch.from_numpy(model.predict_proba(data.test_x.double().numpy()))
    found = votes(data.test_x, data.train_x, data.train_y, 7)
    assert torch.allclose(found / found.sum(1, keepdim=True), expected, atol=1e-5)
    assert knn(data).values["top1"] == pytest.approx(model.score(data.test_x.double().numpy(), data.test_y.numpy()))


def test_knn_in_small_blocks_is_knn(monkeypatch: pytest.MonkeyPatch):
    data = blobs()
    whole = knn(data)
    monkeypatch.setattr(neighbours, "BLOCK", 700)
    assert knn(data) == whole


def test_the_whole_similarity_matrix_never_exists(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(neighbours, "BLOCK", 1000)
    blocks = list(neighbours.similarity_blocks(torch.randn(50, 4), torch.randn(200, 4)))
    assert [cosine.shape for _, cosine in blocks] == [(5, 200)] * 10


def test_equal_neighbours_come_in_the_order_of_the_gallery():
    gallery = torch.tensor([[0.0, 1.0], [1.0, 1.0], [2.0, 2.0], [1.0, 1.0]])
    assert nearest(torch.tensor([[3.0, 3.0]]), gallery, 3)[1].tolist() == [[1, 2, 3]]


@pytest.mark.parametrize("k", [1, 20, 60])
def test_the_nearest_are_those_of_a_ranking_of_all(k: int):
    generator = torch.Generator().manual_seed(0)
    gallery = torch.randint(-1, 2, (400, 4), generator=generator).float()  # at most 81 directions: whole crowds are equal
    queries = torch.randint(-2, 3, (50, 4), generator=generator).float()
    cosines, places = nearest(queries, gallery, k)
    for _, cosine in neighbours.similarity_blocks(queries, gallery):
        steps = (cosine.double() * neighbours.GRID).round()
        ranked = [sorted(range(400), key=lambda place, row=row: (-float(row[place]), place))[:k] for row in steps]
        assert places.tolist() == ranked
        assert torch.equal(cosines, cosine.gather(1, torch.tensor(ranked)))


def test_no_sample_is_its_own_neighbour():
    x = torch.randn(30, 5)
    cosines, places = nearest(x, x, 99, itself=True)
    assert places.shape == (30, 29)
    assert not (places == torch.arange(30)[:, None]).any()
    assert (cosines > -1.01).all()


def test_classes_that_nobody_votes_for_are_no_answer():
    data = blobs()
    only_first = replace(data, train_x=data.train_x[:1], train_y=data.train_y[:1])
    found = knn(only_first, k=1).values
    assert found["top1"] == found["top5"] == pytest.approx(float((data.test_y == data.train_y[0]).double().mean()))


def test_more_neighbours_than_samples_are_all_samples():
    data = blobs()
    assert knn(data, k=10_000) == knn(data, k=len(data.train_x))


def test_the_linear_probe_is_as_good_as_the_best_logistic_regression():
    data = blobs(samples=1200)
    x, y, test_x, test_y = (tensor.numpy() for tensor in _standardised(data))
    best = max(LogisticRegression(C=C, max_iter=2000).fit(x, y).score(test_x, test_y) for C in (0.001, 0.01, 0.1, 1, 10))
    noise = (best * (1 - best) / len(test_y)) ** 0.5
    assert best > 0.5
    assert linear(data).values["top1"] > best - 2 * noise


def _standardised(data: Labelled) -> tuple[Tensor, ...]:
    data = data.standardised
    return data.train_x, data.train_y, data.test_x, data.test_y


def test_many_rates_at_once_are_each_rate_alone():
    x, y, *_ = _standardised(blobs())
    weight, bias = train_linear(x, y, 7, torch.tensor(RATES[:5]), seed=0)
    alone, alone_bias = train_linear(x, y, 7, torch.tensor(RATES[2:3]), seed=0)
    assert torch.allclose(weight[:, 2], alone[:, 0], atol=1e-4)
    assert torch.allclose(bias[2], alone_bias[0], atol=1e-4)


def test_one_step_of_the_probe_is_the_gradient_of_softmax_regression(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tacit.evaluation.linear.STEPS", 1)
    x, y, *_ = _standardised(blobs(samples=400))
    weight, bias = train_linear(x, y, 7, torch.tensor([1.0]), seed=0)
    layer = torch.nn.Linear(40, 7)
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    torch.nn.functional.cross_entropy(layer(x), y).backward()
    assert layer.weight.grad is not None
    rate = 1 / torch.linalg.eigvalsh(x.T @ x / len(x))[-1]
    assert torch.allclose(weight[:, 0].T, -rate * layer.weight.grad, rtol=1e-2, atol=1e-6)
    assert torch.allclose(bias[0], -rate * layer.bias.grad, rtol=1e-2, atol=1e-6)


def test_the_linear_probe_does_not_care_about_the_units_of_the_features():
    data = blobs()
    moved = replace(data, train_x=data.train_x * 1000 + 5, test_x=data.test_x * 1000 + 5)
    assert abs(linear(moved).values["top1"] - linear(data).values["top1"]) < 0.02


def test_test_labels_choose_nothing():
    data = blobs()
    wrong = replace(data, test_y=(data.test_y + 1) % 7)
    assert linear(wrong).detail == linear(data).detail
    assert linear(wrong).values["top1"] < 0.2


def test_one_sample_of_each_class_is_enough_for_a_probe():
    data = blobs()
    found = linear(replace(data, train_x=data.train_x[:7], train_y=data.train_y[:7]))
    assert found.detail["held_out"] == 0
    assert found.values["top1"] > 0.2


@pytest.mark.parametrize("protocol", [knn, linear])
def test_shuffled_labels_give_chance(protocol):
    data = blobs(samples=2000)
    assert protocol(data).values["top1"] > 0.4
    assert_chance(protocol(shuffled(data)).values["top1"], data)


@pytest.mark.parametrize("protocol", [knn, linear, fewshot])
def test_constant_features_give_chance_and_no_error(protocol):
    data = blobs(samples=280)
    flat = replace(data, train_x=torch.ones_like(data.train_x), test_x=torch.ones_like(data.test_x))
    for name, value in protocol(flat).values.items():
        assert name == "top5" or value == pytest.approx(1 / 7, abs=0.01)


@pytest.mark.parametrize("protocol", [knn, linear, fewshot])
def test_the_same_features_give_the_same_figures(protocol):
    assert protocol(blobs()) == protocol(blobs())


def test_more_labels_do_better():
    found = fewshot(blobs(samples=1200))
    one, five, ten = (found.values[f"top1_{count}_per_class"] for count in (1, 5, 10))
    assert 1 / 7 < one < five < ten
    assert set(found.deviations) == set(found.values)
    assert all(deviation > 0 for deviation in found.deviations.values())


def test_counts_that_no_class_has_are_left_out():
    data = blobs()
    found = fewshot(replace(data, train_x=data.train_x[:42], train_y=data.train_y[:42]))
    assert set(found.values) == {"top1_1_per_class", "top1_5_per_class"}
