"""What to change after a verdict that is not `learned`: the two likeliest causes, each with the option that mends it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tacit.train.config import Training
from tacit.train.evidence import COLLAPSED_RANK, ENOUGH, Evidence

FAR = 3.0
"""A number that differs from the recipe's by a smaller factor is a matter of taste."""

TUNED = ("lr", "batch", "warmup", "weight_decay", "optimiser", "schedule", "beta1", "beta2", "momentum", "clip", "layer_decay")
"""Options of training that decide whether it learns, beside all of the method's own."""


WRONG_SIGN = "turn the sign of the loss in the method's forward pass, and start again (another --out)"


@dataclass(frozen=True)
class Setting:
    """How a run was set up.

    Attributes:
        training: its values.
        departures: options that the user set otherwise than the recipe would have, each with (the user's value, the recipe's).
        duplicates: share of samples with a near-duplicate, in `[0, 1]`.
        varied: what views of whole samples differ in (`Sight.varied`).
        rebuilds: whether the method predicts its own input (`Method.rebuilds`).
    """

    training: Training
    departures: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    duplicates: float = 0.0
    varied: str = "light and colour"
    rebuilds: bool = False


def departures(config: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The given values of a configuration that decide whether a run learns and are far from the usual ones, farthest first."""
    values = {name: value for name, value in config["train"].items() if name in TUNED} | config["method"]
    pairs = {name: (values[name], usual) for name, usual in config.get("usual", {}).items() if name in values}
    far = {name: _distance(*pair) for name, pair in pairs.items()}
    return {name: pairs[name] for name in sorted(far, key=far.__getitem__, reverse=True) if far[name] > FAR}


def _distance(one: Any, other: Any) -> float:
    """The factor between two numbers; for what is no number, and between nothing and something, more than any factor."""
    if one == other:
        return 1.0
    if any(isinstance(value, bool) or not isinstance(value, int | float) or not value for value in (one, other)):
        return math.inf
    return max(abs(one / other), abs(other / one))


def advise(word: str, e: Evidence, setting: Setting) -> list[str]:
    """Two sentences after any verdict but `learned`: what the user changed comes first, then what the figures point to."""
    if word == "learned":
        return []
    causes = {"loss": WRONG_SIGN} if e.wrong_sign else {}
    causes |= {name: _back(name, *values) for name, values in setting.departures.items()}
    for name, sentence in _likely(word, e, setting):
        causes.setdefault(name, sentence)
    return list(causes.values())[:2]


def _back(name: str, given: Any, usual: Any) -> str:
    return f"go back to the recipe's {name} (--set {name}={_typed(usual)}): {_typed(given)} is far from it"


def _typed(value: Any) -> str:
    """As it is typed behind `--set NAME=`."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _likely(word: str, e: Evidence, setting: Setting) -> Iterator[tuple[str, str]]:
    """Options with what to do about them, likeliest first."""
    t = setting.training
    if e.raw.get("effective_rank", math.inf) < COLLAPSED_RANK:
        yield "data", "the samples themselves look all alike: see what `tacit doctor DATA` says of them, and train on others"
    if setting.duplicates > 0.5:
        copies = f"{setting.duplicates:.0%} of the samples are copies of others, or nearly"
        yield "data", f"{copies}: take them out (`tacit doctor DATA` names them)"
    if word == "undecided":
        if e.samples < ENOUGH:
            yield "data", f"give {4 * ENOUGH} samples at the least, of which {ENOUGH} are held back (--set held_back={ENOUGH})"
        yield "steps", f"train three times as long (--steps {3 * t.steps})"
        yield "lr", f"raise the learning rate (--set lr={_typed(3 * t.lr)})"
        return
    yield "lr", f"lower the learning rate to a third (--set lr={_typed(t.lr / 3)})"
    if t.precision != "float32":
        yield "precision", "compute in full precision (--set precision=float32)"
    yield "warmup", f"lengthen the warm-up (--set warmup={max(2 * t.warmup, t.steps // 5, 1)})"
    yield "batch", f"take larger batches (--set batch={2 * t.batch})"
