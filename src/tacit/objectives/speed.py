"""Relative speed and appearance of videos (RSPNet). Pure functions; scores are float32 at least, also under autocast."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tacit.objectives.contrast import similarities
from tacit.objectives.precision import wide


def scores(query: Tensor, key: Tensor, temperature: float) -> Tensor:
    """`q_i . k_i / T` of unit rows: `[N, D]` twice -> `[N]`. No gradient reaches the keys."""
    return (wide(query) * wide(key.detach())).sum(dim=-1) / temperature


def relative_speed(same: Tensor, other: Tensor, margin: float) -> Tensor:
    """`mean max(0, margin - (p - n))`: the clip at the query's speed has to be closer than that at the other speed.

    Args:
        same: p `[N]`, scores of query and key at the same speed.
        other: n `[N]`, scores of query and key at the other speed.
        margin: in the units of the scores, which are divided by the temperature: 2 at T = 0.07 are 0.14 in cosines.

    When nothing is told apart (p = n) the loss is the margin.
    """
    return F.relu(margin - (same - other)).mean()


def speed_accuracy(same: Tensor, other: Tensor) -> Tensor:
    """The share of samples whose key at the same speed is the closer one; 1/2 by chance."""
    return (same > other).double().mean()


def appearance(
    query: Tensor, positives: Sequence[Tensor], queue: Tensor, temperature: float, own: Tensor | None = None
) -> Tensor:
    """`sum_j mean_i -log(exp(q_i . k_ij / T) / (exp(q_i . k_ij / T) + sum_m exp(q_i . queue_m / T)))` (A-VID).

    One cross-entropy for each sort of positives, summed. Positives are never in each other's denominators.

    Args:
        query: `[N, D]`, unit rows.
        positives: keys `[N, D]`, unit rows, never with a gradient: the same videos at one speed, at another ...
        queue: `[K, D]`, keys of other videos, never with a gradient.
        temperature: T.
        own: bool `[N, K]`, keys in the queue that are of the query's own video and are left out (tacit's, not the paper's).
    """
    negatives = similarities(query, queue.detach(), temperature, floor=None)
    if own is not None:
        negatives = negatives.masked_fill(own, -1e9)
    rest = negatives.logsumexp(dim=1)
    hits = [scores(query, key, temperature) for key in positives]
    return torch.stack([(torch.logaddexp(hit, rest) - hit).mean() for hit in hits]).sum()


def appearance_chance(size: int, positives: int = 2) -> float:
    """The loss when all keys are alike, once the queue of `size` keys holds no random ones: `positives * log(size + 1)`."""
    return positives * math.log(size + 1)
