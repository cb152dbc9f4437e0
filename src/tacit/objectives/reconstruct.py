"""Regression of hidden patches. Pure functions."""

from __future__ import annotations

import torch
from torch import Tensor

from tacit.objectives.precision import as_given


def normalised(patches: Tensor, floor: float | Tensor = 1e-6) -> Tensor:
    """`(t - mean) / sqrt(var + floor)` of every patch `[..., n]`, with the unbiased variance (divided by n - 1).

    Args:
        patches: the pixels of each patch.
        floor: what is added to the variance: keeps the noise of flat patches from being blown up to unit variance.
    """
    mean, variance = patches.mean(dim=-1, keepdim=True), patches.var(dim=-1, keepdim=True, correction=1)
    return (patches - mean) / (variance + floor).sqrt()


def masked_mse(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """`sum(mask * mean_n (prediction - target)^2) / sum(mask)`: one ratio over the whole batch.

    Args:
        prediction, target: `[B, L, n]`.
        mask: `[B, L]`, 1 for patches that count.
    """
    with as_given(prediction.device):
        error = prediction - target
        # One pass over the differences, and one back, where `square` and `mean` take two of each.
        return (torch.linalg.vecdot(error, error) * mask).sum() / (mask.sum() * error.shape[-1])


def normalised_chance(values: int) -> float:
    """The loss of predicting 0 for normalised patches of so many values: `(n - 1) / n`."""
    return (values - 1) / values
