"""Weighted k-nearest neighbours, as DINO reports them (Caron et al., 2021; Wu et al., "Instance discrimination", 2018)."""

from __future__ import annotations

import torch
from torch import Tensor

from tacit.evaluation.features import Labelled
from tacit.evaluation.neighbours import nearest
from tacit.evaluation.outcome import Outcome, accuracies


def votes(test_x: Tensor, train_x: Tensor, train_y: Tensor, classes: int, k: int = 20, temperature: float = 0.07) -> Tensor:
    """What the k nearest training samples say about each test sample: the sum of exp(cosine / temperature) by class.

    Args:
        test_x: `[M, D]`.
        train_x: `[N, D]`.
        train_y: int64 `[N]`, in `[0, classes)`.
        classes: how many there are.
        k: how many vote.
        temperature: the smaller, the more the nearest outweigh the rest.

    Returns:
        float64 `[M, classes]`, 0 for classes without a vote.
    """
    cosine, places = nearest(test_x, train_x, k)
    weights = (cosine.double() / temperature).exp()
    return torch.zeros(len(test_x), classes, dtype=torch.float64, device=test_x.device).scatter_add_(
        1, train_y[places], weights
    )


def knn(data: Labelled, k: int = 20, temperature: float = 0.07) -> Outcome:
    """Accuracy on test by the votes of the k nearest training samples; nothing is fitted."""
    said = votes(data.test_x, data.train_x, data.train_y, len(data.classes), k, temperature)
    # A class that nobody voted for is no answer, not even the fifth.
    values = accuracies(said.masked_fill(said == 0, -torch.inf), data.test_y)
    return Outcome(values, {"k": min(k, len(data.train_x)), "temperature": temperature, "similarity": "cosine"})
