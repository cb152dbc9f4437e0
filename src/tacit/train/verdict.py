"""Did it learn? Decided from figures that need no labels, with the reasons in words."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

Row = dict[str, float]

COLLAPSED_RANK = 1.5
"""Below this, features lie on one line: no two directions carry anything."""
COLLAPSED_SHARE = 0.1
"""A rank below this share of the untrained encoder's, together with lost instances, is a collapse too."""


ENOUGH = 48
"""Fewer held-back samples than this prove nothing."""


@dataclass(frozen=True)
class Verdict:
    """`learned`, `undecided`, `collapsed` or `diverged`, and the figures that say so.

    Attributes:
        verdict: the word.
        reasons: sentences, the weightiest first.
        advice: what to change, most likely cause first; empty when it learned.
        figures: the run's last figures.
        baselines: the same figures of the untrained encoder and of raw input.
        step: after how many steps.
    """

    verdict: str
    reasons: list[str]
    advice: list[str]
    figures: Row
    baselines: dict[str, Row] = field(default_factory=dict)
    step: int = 0

    def to_dict(self) -> dict[str, Any]:
        def plain(row: Row) -> dict[str, float | None]:
            return {name: value if math.isfinite(value) else None for name, value in row.items()}

        return asdict(self) | {
            "figures": plain(self.figures),
            "baselines": {name: plain(row) for name, row in self.baselines.items()},
        }


def judge(
    now: Row, untrained: Row, raw: Row, loss: float, first_loss: float, chance: float | None, samples: int, step: int
) -> Verdict:
    """The verdict on a run.

    Args:
        now, untrained, raw: figures (`watch.describe`) of the encoder now, as it was initialised, and of raw input.
        loss: mean of the last losses; first_loss: of the first.
        chance: the loss of a model that learned nothing, as far as it is known.
        samples: how many held-back samples the figures rest on.
        step: optimiser steps so far.
    """
    baselines = {"untrained": untrained, "input": raw}

    def verdict(word: str, reasons: list[str], advice: list[str] | None = None) -> Verdict:
        return Verdict(word, reasons, advice or [], now, baselines, step)

    if not math.isfinite(loss) or not all(math.isfinite(value) for value in now.values()):
        return verdict(
            "diverged",
            ["the loss or the features are no longer finite"],
            ["lower the learning rate (--set lr=...) to a third", "use --set precision=float32"],
        )
    reference = first_loss if chance is None else max(chance, first_loss)
    if loss > 1.5 * abs(reference) + 1e-6 and step > 0:
        return verdict(
            "diverged",
            [f"the loss rose to {loss:.3g}, above the {reference:.3g} it started from"],
            ["lower the learning rate (--set lr=...) to a third", "lengthen the warm-up (--set warmup=...)"],
        )

    rank, rank_before = now["effective_rank"], untrained["effective_rank"]
    found, found_before, found_raw = now["second_view"], untrained["second_view"], raw["second_view"]
    noise = 2 * math.sqrt(max(found_before * (1 - found_before), 1 / samples) / samples)
    lost = found < found_before - noise
    flat_projector = now.get("projector_effective_rank", math.inf) < COLLAPSED_RANK
    if rank < COLLAPSED_RANK or flat_projector or (rank < COLLAPSED_SHARE * rank_before and lost):
        where = "projected features" if flat_projector and rank >= COLLAPSED_RANK else "features"
        worst = now["projector_effective_rank"] if flat_projector and rank >= COLLAPSED_RANK else rank
        return verdict(
            "collapsed",
            [
                f"the {where} have an effective rank of {worst:.1f} (untrained encoder: {rank_before:.1f})",
                f"a sample's second view is found in {found:.0%} of cases "
                f"(untrained encoder {found_before:.0%}, raw input {found_raw:.0%})",
            ],
            [
                "lower the learning rate (--set lr=...) to a third",
                "look at `tacit methods NAME` for what keeps it apart",
            ],
        )

    reasons = [
        f"a sample's second view is found among {samples} in {found:.0%} of cases "
        f"(untrained encoder {found_before:.0%}, raw input {found_raw:.0%})",
        f"effective rank {rank:.1f} (untrained {rank_before:.1f})",
    ]
    below = chance is not None and loss < 0.9 * chance if chance else loss < 0.9 * first_loss
    if chance is not None:
        reasons.append(f"loss {loss:.3g} against {chance:.3g} by chance")
    else:
        reasons.append(f"loss {loss:.3g}, from {first_loss:.3g} at the start")
    if below and found > found_before + noise and samples >= ENOUGH:
        return verdict("learned", reasons)
    missing = []
    if samples < ENOUGH:
        missing.append(f"{samples} held-back samples are too few to be sure")
    if not below:
        missing.append("the loss is hardly below what chance gives")
    if found <= found_before + noise:
        missing.append("second views are found no better than before training")
    return verdict(
        "undecided",
        [*missing, *reasons],
        ["train longer (--minutes, --epochs)", "raise the learning rate (--set lr=...) or weaken the views"],
    )
