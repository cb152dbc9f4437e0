"""Linear probe: one linear layer on frozen, standardised features; many learning rates for the price of a wider matmul."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tacit.core.draws import Draws
from tacit.evaluation.features import Labelled, held_out
from tacit.evaluation.outcome import Outcome, accuracies
from tacit.evaluation.shuffle import shuffles

RATES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Learning rates to choose from, in the unit of `train_linear`. Few steps at a small rate act like a strong penalty."""

BATCH, EPOCHS, STEPS, MOMENTUM = 256, 100, 1000, 0.9
"""At most 100 passes and at most 1,000 steps."""

UNCHOSEN = 0.3
"""The rate where there are no labels to spare for choosing."""

HELD_OUT = 0.2
"""The share of the training labels that choose among the rates."""


MOST_ROWS = 4096
"""The unit of the rates is measured on so many samples."""


def train_linear(x: Tensor, y: Tensor, classes: int, rates: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """K softmax regressions at once, by stochastic gradients with momentum and a cosine from each of `rates` to 0.

    The weights of all K lie side by side in one matrix, so that a step is two matmuls whatever K is. A rate of 1 means
    1 / the largest eigenvalue of the features' second moment, so the same rates suit features of any width and shape.

    Args:
        x: float32 `[N, D]`, standardised.
        y: int64 `[N]`.
        classes: C.
        rates: float32 `[K]`.
        seed: decides the order of the samples.

    Returns:
        weight `[D, K, C]` and bias `[K, C]`; a rate that was too high leaves values that are not finite.
    """
    count, width = x.shape
    epoch_steps = math.ceil(count / BATCH)
    steps = min(EPOCHS * epoch_steps, STEPS)
    rate = (rates.to(x) / _largest_eigenvalue(x))[:, None, None]
    # The bias is the weight of one more feature that is always 1.
    x = torch.cat([x, x.new_ones(count, 1)], dim=1)
    target = torch.nn.functional.one_hot(y, classes).to(x)
    weight = x.new_zeros(len(rates), classes, width + 1)
    momentum = torch.zeros_like(weight)
    orders = shuffles(count, seed, "linear", x.device)
    order = next(orders)
    for step in range(steps):
        place = step % epoch_steps
        if step and place == 0:
            order = next(orders)
        rows = order[place * BATCH : (place + 1) * BATCH]
        samples = x.index_select(0, rows)  # [B, D + 1]
        # Samples come last: a softmax over neighbouring numbers would take longer than the products.
        error = (weight.flatten(0, 1) @ samples.T).view(*weight.shape[:2], -1).softmax(dim=1)  # [K, C, B]
        error -= target.index_select(0, rows).T
        momentum.flatten(0, 1).addmm_(error.flatten(0, 1), samples, beta=MOMENTUM, alpha=1 / len(rows))
        weight.addcmul_(momentum, rate, value=-0.5 * (1 + math.cos(math.pi * step / steps)))
    return weight[..., :-1].permute(2, 0, 1), weight[..., -1]


def linear(data: Labelled, seed: int = 0) -> Outcome:
    """Accuracy on test of a linear classifier of the training features.

    A fifth of the training labels chooses the rate (whole groups, where there are groups); with it, the classifier is trained
    anew on all of them. Where no class has two samples, or two groups, to set one of them aside, the rate is 0.3.
    """
    data = data.standardised
    classes, samples = len(data.classes), torch.arange(len(data.train_y), device=data.train_y.device)
    aside = held_out(data.train_y, HELD_OUT, Draws(seed, 0, samples).within("linear"), data.train_groups)
    fits = {UNCHOSEN: (0.0, 0.0)}
    if aside.any():
        weight, bias = train_linear(data.train_x[~aside], data.train_y[~aside], classes, torch.tensor(RATES), seed)
        scores = torch.einsum("nd,dkc->knc", data.train_x[aside], weight) + bias[:, None]
        fits = {rate: _fit(score, data.train_y[aside]) for rate, score in zip(RATES, scores, strict=True)}
    best = max(fits, key=fits.__getitem__)
    weight, bias = train_linear(data.train_x, data.train_y, classes, torch.tensor([best]), seed)
    values = accuracies(data.test_x @ weight[:, 0] + bias[0], data.test_y)
    return Outcome(values, {"rate": best, "held_out": int(aside.sum()), "held_out_top1": fits[best][0]})


def _fit(scores: Tensor, y: Tensor) -> tuple[float, float]:
    """What chooses: the share that is right, and, as few samples make many rates equal in it, the log-likelihood."""
    likelihood = -float(torch.nn.functional.cross_entropy(scores.double(), y))
    if not math.isfinite(likelihood):
        return 0.0, -math.inf
    return float((scores.argmax(1) == y).double().mean()), likelihood


def _largest_eigenvalue(x: Tensor) -> float:
    """Of `x^T x / N`, by power iteration on some thousand rows, evenly spread; 1 where there is no spread at all."""
    x = x[:: -(-len(x) // MOST_ROWS)]
    vector = torch.linspace(1, 2, x.shape[1], dtype=x.dtype, device=x.device)
    for _ in range(20):
        vector = x.T @ (x @ (vector / vector.norm().clamp(min=1e-30))) / len(x)
    return float(vector.norm()) or 1.0
