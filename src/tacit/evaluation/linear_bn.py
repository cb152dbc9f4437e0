"""MAE's linear probe: batch-norm without gain and bias, then one linear layer, trained by LARS (He et al., 2022)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tacit.core.draws import Draws
from tacit.evaluation.features import Labelled
from tacit.evaluation.outcome import Outcome, accuracies
from tacit.evaluation.schedule import warmed_cosine
from tacit.evaluation.shuffle import shuffles

RATE, MOMENTUM, TRUST = 6.4, 0.9, 1e-3
"""As published: 0.1 for each 256 of a batch of 16,384."""

EPS, MEMORY = 1e-6, 0.1
"""Of the batch-norm: what is added to variances, and how much a batch counts in the running statistics."""

STEPS, WARMUP = 7020, 1 / 9
"""90 passes over ImageNet in batches of 16,384, the first 10 of them with a rising rate."""

PASS = 78
SMALLEST, LARGEST = 256, 16384
"""A pass has 78 batches, as there, but a batch has at least 256 samples (or all) and at most the published 16,384."""

FIRST = 0.01
"""Standard deviation of the first weights. LARS moves a weight by a share of its own length, so it cannot start from 0."""


def train_linear_bn(x: Tensor, y: Tensor, classes: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The probe's weights, by the published number of steps at the published rate, in batches that the set affords.

    With `z` the batch of features without its mean, over its deviation, and `g` the gradient of the mean cross-entropy of
    `z W + b`: `v <- 0.9 v + q g; (W, b) <- (W, b) - rate v`, where `q = 0.001 |W| / |g|` for W (1 if either is 0), 1 for b.

    Args:
        x: float32 `[N, D]`.
        y: int64 `[N]`.
        classes: C.
        seed: decides first weights and the order of the samples.

    Returns:
        running mean `[D]` and variance `[D]` of the features, weight `[D, C]`, bias `[C]`.
    """
    count, width = x.shape
    batch = min(max(count // PASS, SMALLEST), LARGEST)
    batch = count if count < 2 * batch else batch
    batches = count // batch
    mean, variance = x.new_zeros(width), x.new_ones(width)
    drawn = Draws(seed, 0, torch.arange(classes, device=x.device)).within("linear-bn").normal("weight", width)
    weight, bias = FIRST * drawn.T.to(x), x.new_zeros(classes)
    weight_momentum, bias_momentum = torch.zeros_like(weight), torch.zeros_like(bias)
    target = F.one_hot(y, classes).to(x)
    orders = shuffles(count, seed, "linear-bn", x.device)
    order = next(orders)
    for step in range(STEPS):
        place = step % batches
        if step and place == 0 and batches > 1:  # the order within one batch of all makes no difference
            order = next(orders)
        rows = order[place * batch : (place + 1) * batch]
        z = F.batch_norm(x[rows], mean, variance, training=True, momentum=MEMORY, eps=EPS)  # [B, D]
        error = ((z @ weight + bias).softmax(dim=1) - target[rows]) / batch  # [B, C]
        gradient = z.T @ error
        lengths = weight.norm(), gradient.norm()
        trusted = torch.where((lengths[0] > 0) & (lengths[1] > 0), TRUST * lengths[0] / lengths[1], 1.0)
        weight_momentum.mul_(MOMENTUM).add_(gradient * trusted)
        bias_momentum.mul_(MOMENTUM).add_(error.sum(dim=0))
        rate = RATE * warmed_cosine(step / STEPS, WARMUP)
        weight -= rate * weight_momentum
        bias -= rate * bias_momentum
    return mean, variance, weight, bias


def linear_bn(data: Labelled, seed: int = 0) -> Outcome:
    """Accuracy on test after the last step. Nothing is chosen, so nothing is held out."""
    mean, variance, weight, bias = train_linear_bn(data.train_x, data.train_y, len(data.classes), seed)
    scores = F.batch_norm(data.test_x, mean, variance, eps=EPS) @ weight + bias
    return Outcome(accuracies(scores, data.test_y), {"rate": RATE, "steps": STEPS})
