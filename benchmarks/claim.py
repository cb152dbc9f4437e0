"""What a claim of a paper is: runs with figures, and two of these that are compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import tacit

Figures = Callable[[tacit.Run, str, int], Mapping[str, float]]
"""Of a finished run, of the data it was trained on and of a seed: figures by name, shares where nothing else is said."""


def top1(records: Iterable[Any]) -> dict[str, float]:
    """Accuracies by protocol and encoder: `knn`, `knn untrained`, `linear input`, ..."""
    return {f"{r.protocol} {r.encoder}".removesuffix(" run"): r.value for r in records if r.metric == "top1"}


def probes(run: tacit.Run, data: str, seed: int) -> dict[str, float]:
    """k-NN and the linear probe on the data's own test split."""
    return top1(run.evaluate(data, protocols=["knn", "linear"], seed=seed))


@dataclass(frozen=True)
class Run:
    """What is trained, and what is then asked of it.

    Attributes:
        method: whose run it is.
        data: a folder of the sets, or `sample:NAME`.
        budget: how long, in what no machine changes: `{"epochs": 8}` or `{"steps": 500}`.
        options: all that is set by hand.
        figures: what is measured of the finished run.
    """

    method: str
    data: str
    budget: dict[str, Any]
    options: dict[str, Any] = field(default_factory=dict)
    figures: Figures = probes


@dataclass(frozen=True)
class Claim:
    """What a paper says, the two figures that it is about, and by how much the first has to be above the second.

    Attributes:
        says: the claim.
        first, second: a run's name and which of its figures.
        by: in the unit that is shown.
        unit: what a figure is multiplied by to be shown: 100 for shares in per cent.
    """

    says: str
    first: tuple[str, str]
    second: tuple[str, str]
    by: float = 0.0
    unit: float = 100.0
