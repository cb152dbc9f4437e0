"""One self-contained HTML page under 6 MB: nothing is fetched, and nothing that a file name says can run."""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from tacit.core.errors import TacitError
from tacit.use.report import Map, ReportContent, Setting
from tacit.use.report_curves import MAIN, Chart, main_charts, more_charts, speed_charts
from tacit.use.report_images import SAMPLE_BYTES, enlarged, sheets, small
from tacit.use.report_samples import Sample
from tacit.use.report_table import evaluations
from tacit.use.report_words import ENCODERS, HEADLINES, NO_HEADLINE, SAMPLES, figure, meaning, number, percent

LIMIT = 6_000_000
"""Bytes that a page stays under."""

SKIPPED_SHOWN, PICTURES_SHOWN, NEIGHBOURS_SHOWN, CHARTS_SHOWN = 200, 24, 16, 40


def page(content: ReportContent, samples: Sequence[Sample] = ()) -> bytes:
    """The report's page, UTF-8; `samples` are shown one by one."""
    shown = _shown(content) | _single(content, samples)
    html = document("report.html.j2", shown, shown["all_charts"])
    if len(html) >= LIMIT:
        raise TacitError(f"the report would be {len(html):,} bytes; under {LIMIT:,} was expected")
    return html


def document(template: str, values: Mapping[str, Any], drawn: Sequence[Chart]) -> bytes:
    """A page from a template, with style, scripts and data inside, and a policy that lets nothing else run or load."""
    style, script = _asset("vendor/uplot/uPlot.min.css") + _asset("style.css"), _script()
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    charts = [chart.to_dict() for chart in drawn]
    data = _json({"charts": charts, "map": values.get("map_data"), "clouds": values.get("clouds", [])})
    inlined = {"style": Markup(style), "script": Markup(script), "data": data, "policy": policy}
    html = _templates().get_template(template).render(**values, **inlined)
    return html.encode(errors="backslashreplace")  # A file name need not be Unicode.


def _shown(content: ReportContent) -> dict[str, Any]:
    """What the template shows in words and numbers."""
    verdict = content.verdict
    main, more, speed = main_charts(content), more_charts(content)[:CHARTS_SHOWN], speed_charts(content)
    near = [(row.query, *row.found) for row in content.neighbours[:NEIGHBOURS_SHOWN]]
    near_images = iter(small([found.thumbnail for row in near for found in row]))
    map_data, tiled = _map(content.map) if content.map else (None, [])
    return {
        "content": content,
        "headline": HEADLINES.get(str(verdict.get("verdict")), NO_HEADLINE),
        "figures": _figure_rows(verdict),
        "baselines": [name for name in ENCODERS if name != "run" and (verdict.get("baselines") or {}).get(name)],
        "words": ENCODERS,
        "charts": main,
        "more_charts": more,
        "speed_charts": speed,
        "all_charts": main + more + speed,
        "speed": _speed(content),
        "evaluations": evaluations(content.evaluations) if content.evaluations else None,
        "settings": _grouped(content.settings),
        "skipped": content.skipped[:SKIPPED_SHOWN],
        "pictures": list(zip(content.pictures, enlarged([p.image for p in content.pictures[:PICTURES_SHOWN]]), strict=False)),
        "neighbours": [[(found, next(near_images)) for found in row] for row in near],
        "map_data": map_data,
        "sheets": tiled,
        "environment": {name: str(value)[:300] for name, value in content.environment.items()},
    }


def _single(content: ReportContent, samples: Sequence[Sample]) -> dict[str, Any]:
    """Single samples with their pictures, and the points of those that turn."""
    pictures = enlarged([sample.picture for sample in samples], SAMPLE_BYTES)
    clouds = [sample.cloud for sample in samples if sample.cloud is not None]
    kind = next((setting.value for setting in content.settings if setting.name == "data.kind"), "")
    return {
        "samples": list(zip(samples, pictures, strict=True)),
        "samples_say": SAMPLES.get(kind, ""),
        "clouds": [{"points": base64.b64encode(c.points.tobytes()).decode(), "valued": c.valued} for c in clouds],
    }


def _figure_rows(verdict: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The verdict's figures beside those of the baselines; of the projector, which is thrown away, only its rank."""
    figures, baselines = verdict.get("figures") or {}, verdict.get("baselines") or {}
    rows = []
    of_encoder = [name for name in figures if not name.startswith("projector") and name not in MAIN]
    for name in (*MAIN, *of_encoder, "projector_effective_rank"):
        if name not in figures:
            continue
        others = {encoder: baselines[encoder].get(name) for encoder in baselines}
        known = meaning(name)
        everyone = {"run": figures[name], **others}
        numbers = {encoder: v for encoder, v in everyone.items() if known.better and isinstance(v, (int, float))}
        best = max(numbers, key=lambda encoder: numbers[encoder]) if len(numbers) > 1 else None
        cells = {encoder: figure(name, v) for encoder, v in everyone.items()}
        rows.append({"words": known.words, "says": known.says, "cells": cells, "best": best})
    return rows


def _speed(content: ReportContent) -> dict[str, Any] | None:
    """The run's speed as a few figures, and where a step's time went as shares of one."""
    columns = {name: [v for v in values if v is not None] for name, values in content.speed.items()}
    if not columns.get("samples_per_second"):
        return None
    weights = columns.get("seconds") or [1.0]
    parts: list[tuple[str, float]] = []
    for name, values in columns.items():
        if name.startswith("share_") and len(values) == len(weights):
            mean = sum(w * v for w, v in zip(weights, values, strict=True)) / max(sum(weights), 1e-12)
            parts.append((name.removeprefix("share_"), min(max(mean, 0.0), 1.0)))
    rest = 1 - sum(share for _, share in parts)
    if parts and rest > 0.005:
        parts.append(("other", rest))
    left, bars = 0.0, []
    for index, (name, share) in enumerate(parts):
        bars.append(
            {
                "name": name,
                "share": percent(share),
                "left": round(100 * left, 2),
                "width": round(100 * share, 2),
                "index": index,
            }
        )
        left += share
    middle = sorted(columns["samples_per_second"])[len(columns["samples_per_second"]) // 2]
    memory = max(columns.get("memory_mb") or [0])
    waiting = dict(parts).get("waiting")
    return {"median": number(middle), "memory": number(memory) if memory else None, "waiting": waiting, "bars": bars}


def _grouped(settings: Iterable[Setting]) -> dict[str, list[dict[str, str]]]:
    """Settings by table, each with its origin split into where (paper, given, auto) and why."""
    groups: dict[str, list[dict[str, str]]] = {}
    for setting in settings:
        table, _, name = setting.name.rpartition(".")
        where, _, why = setting.origin.partition(":")
        row = {"name": name, "value": setting.value[:500], "where": where.strip(), "why": why.strip()[:500]}
        groups.setdefault(table or "run", []).append(row)
    return groups


def _map(shown: Map) -> tuple[dict[str, Any], list[str]]:
    """The map's points as columns, and the sheets with their thumbnails."""
    labels = [place.label for place in shown.places]
    counts = Counter(label for label in labels if label is not None)
    names = sorted(counts, key=lambda label: (-counts[label], label))[:200]
    index = {name: i for i, name in enumerate(names)}
    tiled = sheets([place.thumbnail for place in shown.places])
    columns = {
        "x": [round(place.x, 4) for place in shown.places],
        "y": [round(place.y, 4) for place in shown.places],
        "label": [index.get(label, -1) if label is not None else -1 for label in labels],
        "labels": [name[:60] for name in names],
        "path": [_middle_cut(place.path, 80) for place in shown.places],
        "tile": tiled.tile,
        "tiles": tiled.across,
    }
    return columns, tiled.pictures


def _middle_cut(path: str, length: int = 120) -> str:
    return path if len(path) <= length else f"{path[: length // 3]}…{path[-(length - length // 3) :]}"


def _coded(text: str) -> Markup:
    """Text with what stands between backticks as code."""
    parts = [
        Markup("<code>{}</code>").format(part) if place % 2 else escape(part) for place, part in enumerate(str(text).split("`"))
    ]
    return Markup("").join(parts)


def _json(content: Any) -> Markup:
    """JSON for a script element: no character in it can end the element or open a comment."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@cache
def _script() -> str:
    """The plotting library with its licence, then our scripts."""
    licence = f"/*\n{_asset('vendor/uplot/LICENSE')}\n*/\n"
    return licence + "\n".join(map(_asset, ("vendor/uplot/uPlot.iife.min.js", "curves.js", "map.js", "clouds.js")))


@cache
def _asset(name: str) -> str:
    return files("tacit.use").joinpath("page", *name.split("/")).read_text("utf-8").replace("\r\n", "\n")


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("tacit.use", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["middle_cut"] = _middle_cut
    environment.filters["pyrepr"] = repr
    environment.filters["coded"] = _coded
    return environment
