"""Several runs side by side: a table for the terminal, and one page."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tacit.core.errors import TacitError
from tacit.core.files import write_bytes
from tacit.use.report import ReportContent
from tacit.use.report_curves import MAIN, overlaid
from tacit.use.report_page import document
from tacit.use.report_table import Evaluations, side_by_side
from tacit.use.report_words import ENCODERS, HEADLINES, NO_HEADLINE, NOTHING, figure, meaning, number

if TYPE_CHECKING:
    from rich.table import Table

UNTOLD = ("run.tacit", "data.fingerprint", "data.understood")
"""Settings that differ without a choice behind it."""


def compare(folders: Sequence[str | os.PathLike[str]], page: str | os.PathLike[str] | None = None) -> Table:
    """Runs side by side as a table for the terminal; also as a page, where one is asked for."""
    comparison = Comparison.of(folders)
    if page is not None:
        comparison.write(page)
    return comparison.table()


@dataclass(frozen=True)
class Comparison:
    """Runs by name, each as its report knows it."""

    runs: Mapping[str, ReportContent]

    @classmethod
    def of(cls, folders: Sequence[str | os.PathLike[str]]) -> Comparison:
        """Read run folders. Runs are called by their folders' names, with as many folders above as tell them apart."""
        if len(folders) < 2:
            raise TacitError(f"{len(folders)} run was given; two or more are needed to compare")
        paths = [Path(folder) for folder in folders]
        if len({path.resolve() for path in paths}) < len(paths):
            raise TacitError("the same run was given twice; give different ones")
        parts = [path.resolve().parts for path in paths]
        told = next(depth for depth in range(1, 1 + max(map(len, parts))) if len({own[-depth:] for own in parts}) == len(parts))
        names = ["/".join(own[-told:]) for own in parts]
        return cls({name: ReportContent.from_folder(path) for name, path in zip(names, paths, strict=True)})

    def overview(self) -> list[tuple[str, list[str]]]:
        """Rows of (what, one text per run): verdict, steps, figures, speed."""
        runs = list(self.runs.values())
        rows = [
            ("verdict", [_headline(run) for run in runs]),
            ("steps", [number(run.verdict.get("step")) for run in runs]),
        ]
        for name in MAIN:
            for encoder, words in (("run", ""), *((key, f", {words}") for key, words in ENCODERS.items() if key != "run")):
                texts = [figure(name, _figures(run, encoder).get(name)) for run in runs]
                rows.append((meaning(name).words + words, texts))
        rows.append(("loss, last", [number(_last(run.metrics.get("loss"))) for run in runs]))
        rows.append(("loss at chance", [number(_last(run.metrics.get("chance"))) for run in runs]))
        rows.append(("samples per second", [number(_middle(run.speed.get("samples_per_second"))) for run in runs]))
        return [row for row in rows if any(text != NOTHING for text in row[1])]

    def evaluations(self) -> Evaluations:
        return side_by_side({name: run.evaluations for name, run in self.runs.items()})

    def differences(self) -> list[tuple[str, list[str]]]:
        """Settings that are not the same in all runs, and their values."""
        values = [{setting.name: setting.value for setting in run.settings} for run in self.runs.values()]
        names = dict.fromkeys(name for own in values for name in own)
        rows = [(name, [own.get(name, NOTHING) for own in values]) for name in names if name not in UNTOLD]
        return [row for row in rows if len(set(row[1])) > 1]

    def table(self) -> Table:
        """For the terminal, by rich."""
        from rich.table import Table
        from rich.text import Text

        table = Table("")
        for name in self.runs:
            table.add_column(Text(name))
        for what, texts in self.overview():
            table.add_row(Text(what), *map(Text, texts))
        table.add_section()
        for protocol, rows in self.evaluations().protocols.items():
            for row in rows:
                cells = [
                    Text(f"{cell.value} {cell.deviation}".strip(), style="bold" if cell.best else "") if cell else Text(NOTHING)
                    for cell in row.cells
                ]
                table.add_row(Text(f"{protocol}: {row.metric} ({row.data})"), *cells)
        table.add_section()
        for name, texts in self.differences():
            table.add_row(Text(name, style="dim"), *(Text(text, style="dim") for text in texts))
        return table

    def write(self, path: str | os.PathLike[str]) -> None:
        """One self-contained page."""
        charts = overlaid(self.runs)
        values = {
            "names": list(self.runs),
            "tones": [HEADLINES.get(str(run.verdict.get("verdict")), NO_HEADLINE).tone for run in self.runs.values()],
            "overview": self.overview(),
            "charts": charts,
            "evaluations": self.evaluations(),
            "differences": self.differences(),
        }
        write_bytes(path, document("compare.html.j2", values, charts))


def _headline(run: ReportContent) -> str:
    return HEADLINES.get(str(run.verdict.get("verdict")), NO_HEADLINE).words


def _figures(run: ReportContent, encoder: str) -> Mapping[str, float]:
    verdict = run.verdict
    return (verdict.get("figures") if encoder == "run" else (verdict.get("baselines") or {}).get(encoder)) or {}


def _last(values: Sequence[float | None] | None) -> float | None:
    return next((value for value in reversed(values or []) if value is not None), None)


def _middle(values: Sequence[float | None] | None) -> float | None:
    known = sorted(value for value in values or [] if value is not None)
    return known[len(known) // 2] if known else None
