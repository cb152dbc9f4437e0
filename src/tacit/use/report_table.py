"""Evaluations as a table: this run beside the untrained encoder and raw input, and by how much it is ahead."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tacit.evaluation.dense import DENSE
from tacit.evaluation.protocol import PROTOCOLS
from tacit.use.report_words import ENCODERS, MEANINGS, direction, is_share, metric_words, number, percent, with_minus


@dataclass(frozen=True)
class Cell:
    """A result of one encoder: the mean over seeds as text, the deviation ("" where unknown), whether it is the row's best."""

    value: str
    deviation: str = ""
    best: bool = False


@dataclass(frozen=True)
class Row:
    """One figure of one protocol on one set.

    Attributes:
        metric: in words.
        data: set and split.
        cells: one per column, None where nothing was measured.
        difference: to the better of the two baselines, as text; empty where there is none, or neither way is better.
        ahead: whether the run is better than both; None where that cannot be said.
        labelled: whether labels decide it, so that it counts when the table is summed up.
        seeds: how many were averaged.
    """

    metric: str
    data: str
    cells: Sequence[Cell | None]
    difference: str
    ahead: bool | None
    labelled: bool
    seeds: int


@dataclass(frozen=True)
class Evaluations:
    """The whole table: column heads, rows by protocol, and what they come to in one sentence."""

    columns: Sequence[str]
    protocols: Mapping[str, Sequence[Row]]
    sentence: str = ""

    @property
    def data(self) -> str:
        """The set and split, where all rows have the same."""
        sets = {row.data for rows in self.protocols.values() for row in rows}
        return sets.pop() if len(sets) == 1 else ""

    @property
    def questions(self) -> Mapping[str, str]:
        """What each protocol asks, as far as it is known."""
        known = {**PROTOCOLS, **DENSE}
        return {name: known[name].says if name in known else "" for name in self.protocols}


def evaluations(records: Sequence[Mapping[str, Any]]) -> Evaluations:
    """This run, untrained and raw input side by side."""
    present = [encoder for encoder in ENCODERS if any(record.get("encoder") == encoder for record in records)]
    protocols = _protocols(records, present)
    judged = [row for rows in protocols.values() for row in rows if row.labelled and row.ahead is not None]
    ahead = sum(bool(row.ahead) for row in judged)
    if not judged:
        sentence = "There are no baselines beside these results, so they say little: evaluate with `--baselines both`."
    elif ahead == len(judged):
        where = "all" if len(judged) > 1 else "the one thing"
        sentence = f"The run is ahead of the untrained encoder and of raw input in {where} that was measured with labels."
    elif ahead == 0:
        sentence = "The run is NOT ahead of its baselines: so far, pretraining gained nothing that labels would show."
    else:
        sentence = f"The run is ahead of both baselines in {ahead} of {len(judged)} figures that rest on labels."
    return Evaluations([ENCODERS[encoder] for encoder in present], protocols, sentence)


def side_by_side(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> Evaluations:
    """The results of several runs, each a column; records of baselines are left out."""
    records = [{**record, "encoder": name} for name, own in runs.items() for record in own if record.get("encoder") == "run"]
    return Evaluations(list(runs), _protocols(records, list(runs)))


def _protocols(records: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> dict[str, list[Row]]:
    groups: dict[tuple[str, str, str], dict[str, list[Mapping[str, Any]]]] = {}
    for record in records:
        data = ", ".join(str(record[key]) for key in ("data", "split") if record.get(key))
        group = groups.setdefault((str(record["protocol"]), str(record["metric"]), data), {})
        if isinstance(record.get("value"), (int, float)):
            group.setdefault(str(record["encoder"]), []).append(record)
    protocols: dict[str, list[Row]] = {}
    for (protocol, metric, data), group in groups.items():
        protocols.setdefault(protocol, []).append(_row(metric, data, group, columns))
    return protocols


def _row(metric: str, data: str, group: Mapping[str, Sequence[Mapping[str, Any]]], columns: Sequence[str]) -> Row:
    values = {name: [float(record["value"]) for record in records] for name, records in group.items()}
    share = is_share(metric) and all(-1 <= value <= 1 for own in values.values() for value in own)
    scale, sign = 100 if share else 1, direction(metric)
    means = {name: statistics.fmean(own) * scale for name, own in values.items()}
    best = max((sign * mean for mean in means.values()), default=None)
    cells: list[Cell | None] = []
    for name in columns:
        if name not in means:
            cells.append(None)
            continue
        deviation = _deviation(group[name])
        shown = percent(means[name] / 100) if share else number(means[name])
        spread = "" if deviation is None else f"± {deviation * scale:.1f}" if share else f"± {number(deviation)}"
        cells.append(Cell(shown, spread, best=sign != 0 and len(means) > 1 and sign * means[name] == best))
    others = [sign * mean for name, mean in means.items() if name != "run"]
    gain = sign * means["run"] - max(others) if sign and "run" in means and others else None
    difference = "" if gain is None else with_minus(f"{gain:+.1f} points" if share else f"{gain:+.3g}")
    seeds = max(map(len, values.values()), default=0)
    ahead = None if gain is None else gain > 0
    chance = next((r["detail"]["chance"] for own in group.values() for r in own if "chance" in (r.get("detail") or {})), None)
    words = metric_words(metric) + ("" if chance is None else f" (chance {percent(chance)})")
    return Row(words, data, cells, difference, ahead, metric not in MEANINGS, seeds)


def _deviation(records: Sequence[Mapping[str, Any]]) -> float | None:
    """Over seeds; of one seed what the protocol says of its own draws, if it drew several times."""
    if len(records) > 1:
        return statistics.stdev(float(record["value"]) for record in records)
    deviation = (records[0].get("detail") or {}).get("deviation")
    return float(deviation) if isinstance(deviation, (int, float)) else None
