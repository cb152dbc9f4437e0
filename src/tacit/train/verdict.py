"""Did it learn? Decided from figures that need no labels, with the reasons in words."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from tacit.train.advice import Setting, advise
from tacit.train.evidence import CLEAR, COLLAPSED_RANK, ENOUGH, Evidence, Row

COLLAPSED_SHARE = 1 / 3
"""A rank below this share of the untrained encoder's, together with samples that are no longer found, is a collapse too."""

GATHERED = 0.5
"""Up to this share of its steps a method that predicts its input is not said to collapse: it learns the mean colour first,
and its features pass through a few directions, which healthy runs were seen to leave within a third of their steps."""

SOLVED = 0.5
"""A loss below this share of chance has to come from differences between samples; else it was solved without them."""

PLAIN = 3 * CLEAR
"""Crops that are found ahead by so much make up for light that makes no difference."""

ALIKE = 0.05
"""Features that spread less than this are the same for all samples, as far as a loss can tell."""


@dataclass(frozen=True)
class Verdict:
    """`learned`, `undecided`, `collapsed` or `diverged`, and the figures that say so.

    Attributes:
        verdict: the word.
        reasons: sentences, the weightiest first.
        advice: what to change, most likely cause first; empty when it learned, two sentences else.
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


def judge(e: Evidence, setting: Setting, stopped: str = "") -> Verdict:
    """The verdict on a run, and where it is not `learned`, what to change in its setting.

    Args:
        stopped: why it was stopped at a loss that is not finite, where it was.
    """
    baselines = {"untrained": e.untrained, "input": e.raw}

    def verdict(word: str, reasons: list[str]) -> Verdict:
        return Verdict(word, reasons, advise(word, e, setting), e.now, baselines, e.step)

    if stopped:
        return verdict("diverged", [stopped])
    if not e.now:
        return verdict("undecided", ["too few samples were held back to tell"])
    if not all(math.isfinite(value) for value in (*e.now.values(), e.loss if e.step else 0.0)):
        return verdict("diverged", ["the loss or the features are no longer finite"])
    figures = _figures(e, setting.varied)
    collapsed = [] if setting.rebuilds and e.step < GATHERED * setting.training.steps else _collapsed(e)
    for word, found in (("diverged", _diverged(e)), ("collapsed", collapsed), ("undecided", _undecided(e, setting.varied))):
        if found:
            return verdict(word, [*found, *figures])
    return verdict("learned", figures)


def _diverged(e: Evidence) -> list[str]:
    if e.wrong_sign:
        return [f"the loss is {e.loss:.3g}: it cannot be below 0, so its sign is wrong"]
    reference = e.first_loss if e.chance is None else max(e.chance, e.first_loss)
    if e.step and e.loss > reference + 0.5 * abs(reference) + 1e-6:
        return [f"the loss rose to {e.loss:.3g}, above the {reference:.3g} it started from"]
    return []


def _collapsed(e: Evidence) -> list[str]:
    places = "place_rank" in e.now  # then samples may well be alike
    rank, before = (row.get("place_rank" if places else "effective_rank", math.nan) for row in (e.now, e.untrained))
    if rank < COLLAPSED_RANK:
        whose = "places" if places else "samples"
        return [f"the features of all {whose} lie on one line: effective rank {rank:.1f} (untrained encoder {before:.1f})"]
    if places:
        return []
    if rank < COLLAPSED_SHARE * before and all(e.now[f"{probe}_ahead_of_untrained"] < -CLEAR for probe in ("crops", "light")):
        return [f"the effective rank fell from {before:.1f} to {rank:.1f}, and second views are found worse than at the start"]
    if _flat(e) and e.chance is not None and abs(e.loss) < SOLVED * e.chance:
        return [f"the loss is solved ({e.loss:.2g}) by saying the same of all samples (spread {e.now['projector_spread']:.2f})"]
    return []


def _undecided(e: Evidence, varied: str) -> list[str]:
    missing = []
    if e.samples < ENOUGH:
        missing.append(f"{e.samples} held-back samples are too few to be sure")
    if e.raw["effective_rank"] < COLLAPSED_RANK:
        missing.append("the held-back samples themselves are all alike, so that there is nothing to learn from")
    for name, whom in (("untrained", "before training"), ("input", "in raw input")):
        if e.now[f"crops_ahead_of_{name}"] < CLEAR:
            missing.append(f"second views are found no better than {whom}, beyond what luck explains")
    crops, light = min(e.now[f"crops_ahead_of_{name}"] for name in ("untrained", "input")), e.now["light_ahead_of_untrained"]
    if light < CLEAR and not (light > -CLEAR and crops >= PLAIN):
        missing.append(f"whole samples are found no better than before training once {varied} differ")
    if missing and _flat(e):
        missing.append(f"what the loss sees is nearly the same for all samples (spread {e.now['projector_spread']:.2f})")
    return missing


def _flat(e: Evidence) -> bool:
    """Whether the loss hardly sees a difference between samples: at the start of many runs, and at the end of some."""
    return e.now.get("projector_spread", math.inf) < ALIKE


def _figures(e: Evidence, varied: str) -> list[str]:
    found, before, raw = (row["second_view"] for row in (e.now, e.untrained, e.raw))
    crops, light = ([e.now[f"{probe}_ahead_of_{name}"] for name in ("untrained", "input")] for probe in ("crops", "light"))
    than = f"from {e.first_loss:.3g} at the start" if e.chance is None else f"against {e.chance:.3g} by chance"
    places = ""
    if "place_rank" in e.now:
        places = f", of places {e.now['place_rank']:.1f} ({e.untrained.get('place_rank', math.nan):.1f})"
    return [
        f"a sample's second view is found among {e.samples} in {found:.0%} of cases (untrained encoder {before:.0%}, raw input "
        f"{raw:.0%}); counting places, {crops[0]:+.1f} and {crops[1]:+.1f} standard errors ahead of them, {light[0]:+.1f} and "
        f"{light[1]:+.1f} where {varied} change instead of the crop",
        f"effective rank {e.now['effective_rank']:.1f} (untrained {e.untrained['effective_rank']:.1f}){places}",
        f"loss {e.loss:.3g}, {than}",
    ]
