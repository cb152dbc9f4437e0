"""What a protocol says about one encoder, and how the answers of a classifier are counted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Outcome:
    """Figures about one encoder.

    Attributes:
        values: the figures by name.
        detail: what a reader may want to know of how they came about, plain JSON values.
        deviations: standard deviations of those figures that are means over several draws.
        chances: what those figures are by chance for which that can be said.
    """

    values: dict[str, float]
    detail: dict[str, Any] = field(default_factory=dict)
    deviations: dict[str, float] = field(default_factory=dict)
    chances: dict[str, float] = field(default_factory=dict)


def accuracies(scores: Tensor, y: Tensor) -> dict[str, float]:
    """How often a classifier is right, as shares in `[0, 1]`.

    Equal scores are ordered by class, lower first. A class with the score `-inf` is never an answer.

    Args:
        scores: `[N, C]`, higher is more likely.
        y: int64 `[N]`, the truth.

    Returns:
        `top1`; `balanced`, the mean over the classes in `y` of the share of each that was found; `top5` if C > 5.
    """
    order = scores.argsort(dim=1, descending=True, stable=True)[:, :5]
    hits = (order == y[:, None]) & scores.gather(1, order).isfinite()
    first = hits[:, 0].double()
    samples = torch.bincount(y, minlength=scores.shape[1])
    found = torch.bincount(y, weights=first, minlength=scores.shape[1])
    values = {"top1": float(first.mean()), "balanced": float((found / samples)[samples > 0].mean())}
    if scores.shape[1] > 5:
        values["top5"] = float(hits.any(dim=1).double().mean())
    return values
