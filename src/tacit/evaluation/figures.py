"""What features say of themselves, without labels. Every figure is a float, NaN where a feature is not finite."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec

import torch
import torch.nn.functional as F
from torch import Tensor

from tacit.evaluation.neighbours import nearest, on_grid, similarity_blocks

ROWS = 4096
"""How many rows are in float64 at a time."""

NOISE = 1e-13
"""Variances below this share of the sum of squares are rounding of float32 features, and count as none."""

_P = ParamSpec("_P")


def _finite(figure: Callable[Concatenate[Tensor, _P], float]) -> Callable[Concatenate[Tensor, _P], float]:
    """NaN instead of an error, or of a number that means nothing, for features that hold NaN or infinity."""

    @wraps(figure)
    def guarded(features: Tensor, *args: _P.args, **kwargs: _P.kwargs) -> float:
        tensors = [features, *(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))]
        return figure(features, *args, **kwargs) if all(tensor.isfinite().all() for tensor in tensors) else math.nan

    return guarded


def _eigenvalues(features: Tensor, centred: bool) -> Tensor:
    """Of `x^T x`, falling, float64 `[min(N, D)]`; the smaller of the two Gram matrices is decomposed."""
    mean = features.mean(dim=0, dtype=torch.float64) * centred
    if len(features) < features.shape[1]:
        x = features.double() - mean
        gram = x @ x.T
    else:
        gram = torch.zeros(features.shape[1], features.shape[1], dtype=torch.float64, device=features.device)
        for rows in features.split(ROWS):
            x = rows.double() - mean
            gram += x.T @ x
    values = torch.linalg.eigvalsh(gram).flip(0)
    # Measured against what was there before centring, so that nothing is left of a constant.
    return torch.where(values > NOISE * features.square().sum(dtype=torch.float64), values, 0.0)


@_finite
def effective_rank(features: Tensor) -> float:
    """Effective rank: exp of the entropy of the normalised singular values (RankMe, Garrido et al., 2023), uncentred as there.

    Args:
        features: `[N, D]`.

    Returns:
        From 1 (all features on one line, constant features among them) to min(N, D); 0 if all features are 0.
    """
    singular = _eigenvalues(features, centred=False).sqrt()
    if singular[0] == 0:
        return 0.0
    share = singular / singular.sum()
    return float(torch.special.entr(share).sum().exp())


@_finite
def spread(features: Tensor) -> float:
    """Mean over the dimensions of the deviation of the L2-normalised features, times sqrt(D) (as in SimSiam, 2021).

    Args:
        features: `[N, D]`.

    Returns:
        0 for constant features, about 1 for features in all directions alike.
    """
    unit = F.normalize(features.double(), dim=1)
    return float(unit.std(dim=0, correction=0).mean()) * math.sqrt(features.shape[1])


@_finite
def uniformity(features: Tensor) -> float:
    """The log of the mean of exp(-2 d^2) over all pairs of L2-normalised features (Wang and Isola, 2020, t = 2).

    Args:
        features: `[N, D]`; all pairs are computed, a block of rows at a time.

    Returns:
        0 for constant features; about -4 for features all over the sphere; NaN for a single sample.
    """
    if len(features) < 2:
        return math.nan
    unit = F.normalize(features.double(), dim=1)
    square = unit.square().sum(dim=1)  # 1, or 0 for features of 0
    total = 0.0
    for rows in torch.arange(len(unit), device=unit.device).split(max(1, 2**22 // len(unit))):
        distance = (square[rows, None] + square - 2 * unit[rows] @ unit.T).clamp(min=0.0)
        total += float((-2 * distance).exp().sum())
    # Every sample met itself once, and added exp(0).
    return math.log((total - len(unit)) / (len(unit) * (len(unit) - 1)))


@_finite
def alignment(first: Tensor, second: Tensor) -> float:
    """Mean squared distance of the L2-normalised features of two views of each sample (Wang and Isola, 2020, alpha = 2).

    Args:
        first, second: `[N, D]`, row i of both from one sample.

    Returns:
        From 0 (views make no difference) to 4; 2 is what unrelated directions have.
    """
    return float((F.normalize(first.double(), dim=1) - F.normalize(second.double(), dim=1)).square().sum(dim=1).mean())


@_finite
def second_view(first: Tensor, second: Tensor) -> float:
    """The share of samples whose second view is nearer, by cosine, to their own first view than to any other sample's.

    Args:
        first, second: `[N, D]`, row i of both from one sample.

    Returns:
        In `[0, 1]`; chance, and what constant features get, is 1 / N.
    """
    _, found = nearest(second, first, k=1)
    return float((found[:, 0] == torch.arange(len(first), device=first.device)).double().mean())


def finding(first: Tensor, second: Tensor) -> Tensor:
    """How well each sample's second view is found: 1 / place, as in reciprocal rank.

    Its place is how many samples' first views are at least as near to it, by cosine, as its own: 1 where that is the nearest,
    N for constant features.

    Args:
        first, second: `[N, D]`, row i of both from one sample.

    Returns:
        float64 `[N]` in `(0, 1]`; NaN where features are not finite.
    """
    if not (first.isfinite().all() and second.isfinite().all()):
        return torch.full((len(first),), math.nan, dtype=torch.float64)
    places = []
    for rows, cosine in similarity_blocks(second, first):
        near = on_grid(cosine)
        own = near.diagonal(offset=rows.start)
        places.append((near >= own[:, None]).sum(dim=1))
    return 1 / torch.cat(places).double()


def lead(ours: Tensor, theirs: Tensor) -> float:
    """By how many standard errors of their mean difference one encoder's scores exceed another's, sample by sample.

    Args:
        ours, theirs: `[N]`, scores of the same samples (`finding`).

    Returns:
        0 where they are the same; above 2 chance alone is seldom as high; NaN where a score is.
    """
    ahead = (ours - theirs).double()
    error = float(ahead.std()) / math.sqrt(len(ahead))
    return 0.0 if not ahead.any() else float(ahead.mean()) / max(error, 1e-12)


def standard_error(share: float, count: int) -> float:
    """Of a share that was found in `count` independent cases."""
    return math.sqrt(max(share * (1 - share), 0.0) / count)


@_finite
def alpha_req(features: Tensor) -> float:
    """How fast the variances of the centred features fall: a in `variance_i ~ i^-a` (alpha-ReQ, Agrawal et al., 2022).

    As in the authors' code, a weighted least-squares line through log variance over log i, for i from 4 to 100, weights 1 / i.

    Args:
        features: `[N, D]`.

    Returns:
        Near 1 for representations that transfer well, according to the paper; larger is flatter use of few dimensions.
        NaN where fewer than two of those variances are above 0 (constant features, fewer than 6 samples or dimensions).
    """
    values = _eigenvalues(features, centred=True)[3:100]
    values = values[values > 0]
    if len(values) < 2:
        return math.nan
    index = torch.arange(4, 4 + len(values), dtype=torch.float64, device=values.device)
    weight = 1 / index
    x, y = index.log(), values.log()
    x = x - (weight * x).sum() / weight.sum()
    return -float((weight * x * y).sum() / (weight * x * x).sum())
