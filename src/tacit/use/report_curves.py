"""Curves as the page draws them: columns of numbers over steps, thinned, with the lines that they must be read against."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from tacit.use.report import ReportContent, Table
from tacit.use.report_words import ENCODERS, meaning

MAIN = ("second_view", "effective_rank")
"""The figures that a verdict rests on before all others."""

POINTS = 600
"""Points a curve keeps at the most: more than a screen shows, few enough for the page's size."""


@dataclass(frozen=True)
class Curve:
    """One line: `values[i]` at the chart's `x[i]`; `quiet` ones stand back (raw values behind smoothed ones, chance)."""

    name: str
    values: Sequence[float | None]
    quiet: bool = False
    dashed: bool = False


@dataclass(frozen=True)
class Level:
    """A horizontal line with its name: a baseline."""

    name: str
    value: float


@dataclass(frozen=True)
class Chart:
    """Curves over a common `x` (steps), and the level lines to compare them with."""

    title: str
    says: str
    x: Sequence[float]
    curves: Sequence[Curve]
    levels: Sequence[Level] = field(default_factory=tuple)
    share: bool = False
    wide: bool = False

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def main_charts(content: ReportContent) -> list[Chart]:
    """What says whether it learns: the loss with its chance line, and the chief figures with their baselines."""
    return _loss(content) + [chart for name, chart in _figures(content).items() if name in MAIN]


def more_charts(content: ReportContent) -> list[Chart]:
    """The other figures, the terms of the loss, and what else was recorded."""
    steps, metrics = _steps(content.metrics)
    others = [chart for name, chart in _figures(content).items() if name not in MAIN]
    terms = {name: values for name, values in metrics.items() if name not in ("step", "epoch", "loss", "chance")}
    return others + [
        Chart(meaning(name).words, meaning(name).says, steps, _with_smooth(meaning(name).words, values))
        for name, values in terms.items()
    ]


def overlaid(runs: Mapping[str, ReportContent]) -> list[Chart]:
    """The curves of several runs, those of one name in one chart; steps are joined, gaps stay gaps."""
    drawn: list[Chart] = []
    for table, wanted in (("metrics", ("loss",)), ("figures", MAIN)):
        columns = {name: _steps(getattr(content, table)) for name, content in runs.items()}
        for column in wanted:
            having = {name: (steps, part[column]) for name, (steps, part) in columns.items() if column in part}
            if not having:
                continue
            x = sorted({step for steps, _ in having.values() for step in steps})
            curves = [Curve(name, _on(x, steps, _smoothed(values))) for name, (steps, values) in having.items()]
            known = meaning(column)
            drawn.append(Chart(known.words, known.says, x, curves, share=known.share, wide=column == "loss"))
    return drawn


def speed_charts(content: ReportContent) -> list[Chart]:
    steps, speed = _steps(content.speed)
    return [
        Chart(words, "", steps, [Curve(words, speed[column])])
        for column, words in (("samples_per_second", "samples per second"), ("memory_mb", "memory, MB"))
        if column in speed
    ]


def _loss(content: ReportContent) -> list[Chart]:
    steps, metrics = _steps(content.metrics)
    if "loss" not in metrics:
        return []
    curves, levels = _with_smooth("loss", metrics["loss"]), []
    chance = metrics.get("chance") or []
    known = {value for value in chance if value is not None}
    if len(known) == 1:
        levels = [Level("chance: nothing learned", known.pop())]
    elif known:
        curves.append(Curve("chance: nothing learned", chance, dashed=True))
    says = (
        "Below the dashed line the method does better than guessing. A flat loss is no bad sign by itself."
        if levels or len(curves) > 2
        else "Chance has no known value for this method's loss: judge by the figures beside it."
    )
    return [Chart("loss", says, steps, curves, levels, wide=True)]


def _figures(content: ReportContent) -> dict[str, Chart]:
    """The figures of every check by name, those of `MAIN` first, with a level line for each baseline."""
    steps, figures = _steps(content.figures)
    baselines = content.verdict.get("baselines") or {}
    names = [name for name in MAIN if name in figures] + [name for name in figures if name not in (*MAIN, "step", "epoch")]
    drawn = {}
    for name in names:
        levels = [
            Level(words, float(value))
            for encoder, words in ENCODERS.items()
            if isinstance(value := (baselines.get(encoder) or {}).get(name), (int, float))
        ]
        known = meaning(name)
        drawn[name] = Chart(known.words, known.says, steps, [Curve("this run", figures[name])], levels, known.share)
    return drawn


def _with_smooth(name: str, values: Sequence[float | None]) -> list[Curve]:
    """A curve; a long one stands back behind its smoothed self."""
    if len(values) <= 40:
        return [Curve(name, values)]
    return [Curve(name, values, quiet=True), Curve("smoothed", _smoothed(values))]


def _steps(table: Table) -> tuple[list[float], Table]:
    """The steps and the columns of a table with numbers in it, thinned evenly; the first and the last row stay."""
    columns = {name: values for name, values in table.items() if any(value is not None for value in values)}
    if not columns:
        return [], {}
    length = len(next(iter(columns.values())))
    rows = np.unique(np.linspace(0, length - 1, min(length, POINTS)).round().astype(int))
    steps = columns.get("step") or list(range(length))
    return [_short(steps[row]) or 0.0 for row in rows], {
        name: [_short(values[row]) for row in rows] for name, values in columns.items()
    }


def _smoothed(values: Sequence[float | None]) -> list[float | None]:
    """A centred mean over a twentieth of the curve; what is missing stays missing."""
    reach = len(values) // 40
    if reach == 0:
        return list(values)
    known = np.array([np.nan if value is None else value for value in values])
    present = ~np.isnan(known)
    sums = np.cumsum(np.concatenate([[0.0], np.where(present, known, 0.0)]))
    counts = np.cumsum(np.concatenate([[0], present]))
    left = np.maximum(np.arange(len(known)) - reach, 0)
    right = np.minimum(np.arange(len(known)) + reach + 1, len(known))
    means = (sums[right] - sums[left]) / np.maximum(counts[right] - counts[left], 1)
    return [_short(mean) if there else None for mean, there in zip(means.tolist(), present, strict=True)]


def _on(x: Sequence[float], steps: Sequence[float], values: Sequence[float | None]) -> list[float | None]:
    at = dict(zip(steps, values, strict=True))
    return [at.get(step) for step in x]


def _short(value: float | None) -> float | None:
    """Six digits: what a curve can show. What is not finite cannot be shown."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")
