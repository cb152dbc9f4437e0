"""Figures without labels: against their definitions, and where there is nothing to measure."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tacit.evaluation import figures


def features(rows: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(200, 30), (30, 200)])
def test_effective_rank_is_rankme(shape: tuple[int, int]):
    x = features(*shape) * torch.logspace(0, -2, shape[1])
    singular = np.linalg.svd(x.double().numpy(), compute_uv=False)
    share = singular / singular.sum() + 1e-7
    assert figures.effective_rank(x) == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-4)


def test_effective_rank_counts_directions():
    assert figures.effective_rank(torch.eye(6).repeat(5, 1)) == pytest.approx(6)
    x = features(100, 3) @ torch.linalg.qr(features(50, 3, seed=1)).Q.T
    assert figures.effective_rank(x) < 3 + 1e-3


def test_effective_rank_in_small_blocks_is_effective_rank(monkeypatch: pytest.MonkeyPatch):
    x = features(300, 20)
    whole = figures.effective_rank(x)
    monkeypatch.setattr(figures, "ROWS", 7)
    assert figures.effective_rank(x) == pytest.approx(whole, rel=1e-12)


def test_spread_is_one_for_all_directions_and_falls_with_the_dimensions_used():
    x = features(2000, 64)
    assert figures.spread(x) == pytest.approx(1, abs=0.02)
    x[:, 16:] = 0
    assert figures.spread(x) == pytest.approx(math.sqrt(16 / 64), abs=0.02)


def test_uniformity_and_alignment_are_those_of_wang_and_isola():
    first, second = features(150, 10), features(150, 10) + 0.3 * features(150, 10, seed=1)
    x, y = F.normalize(first.double()), F.normalize(second.double())
    assert figures.uniformity(first) == pytest.approx(float(torch.pdist(x).pow(2).mul(-2).exp().mean().log()))
    assert figures.alignment(first, second) == pytest.approx(float((x - y).norm(dim=1).pow(2).mean()))


def test_alpha_is_the_exponent_of_the_variances():
    width = 150
    axes = torch.linalg.qr(features(1000, width) - features(1000, width).mean(0)).Q.double()
    x = (axes - axes.mean(0)) * torch.arange(1, width + 1, dtype=torch.float64) ** (-1.3 / 2)
    assert figures.alpha_req(x + 7) == pytest.approx(1.3, abs=0.02)


def test_a_second_view_is_found_if_it_is_the_nearest():
    first = torch.eye(10)
    assert figures.second_view(first, first + 0.1) == 1
    assert figures.second_view(first, first.roll(1, 0)) == 0
    half = torch.cat([first[:5], first[5:].roll(1, 0)])
    assert figures.second_view(first, half) == 0.5


def test_unrelated_views_are_found_by_chance():
    found = figures.second_view(features(500, 20), features(500, 20, seed=1))
    assert abs(found - 1 / 500) <= 4 * figures.standard_error(1 / 500, 500)


@pytest.mark.parametrize("constant", [1.0, -3.7, 1e-3, 1e4])
def test_constant_features_are_of_rank_one_and_know_no_sample(constant: float):
    x = torch.full((40, 12), constant) * torch.linspace(0.5, 1, 12)
    assert figures.effective_rank(x) == pytest.approx(1, abs=1e-6)
    assert figures.spread(x) == pytest.approx(0, abs=1e-6)
    assert figures.uniformity(x) == pytest.approx(0, abs=1e-6)
    assert figures.alignment(x, x) == pytest.approx(0, abs=1e-6)
    assert figures.second_view(x, x) == 1 / 40
    assert math.isnan(figures.alpha_req(x))


def test_features_of_zero_are_of_rank_zero():
    x = torch.zeros(40, 12)
    assert figures.effective_rank(x) == figures.spread(x) == figures.uniformity(x) == figures.alignment(x, x) == 0
    assert figures.second_view(x, x) == 1 / 40
    assert math.isnan(figures.alpha_req(x))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_features_that_are_not_finite_have_no_figures(value: float):
    good, bad = features(20, 8), features(20, 8)
    bad[3, 4] = value
    for figure in (figures.effective_rank, figures.spread, figures.uniformity, figures.alpha_req):
        assert math.isnan(figure(bad))
    for figure in (figures.alignment, figures.second_view):
        assert math.isnan(figure(bad, good))
        assert math.isnan(figure(good, bad))
        assert math.isnan(figure(good, second=bad))


def test_a_single_sample_is_no_error():
    x = features(1, 8)
    assert figures.effective_rank(x) == pytest.approx(1)
    assert math.isnan(figures.uniformity(x))
    assert math.isnan(figures.alpha_req(x))


def test_figures_do_not_depend_on_the_order_of_the_samples():
    x, order = features(90, 7), torch.randperm(90)
    for figure in (figures.effective_rank, figures.spread, figures.uniformity, figures.alpha_req):
        assert figure(x[order]) == pytest.approx(figure(x), rel=1e-9)
