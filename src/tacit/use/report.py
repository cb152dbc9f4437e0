"""What a report says about a run, and the page that says it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tacit.core.errors import TacitError, said
from tacit.core.files import opened, read_text, write_bytes
from tacit.train.folder import RunFolder, read_table
from tacit.use import artefacts

if TYPE_CHECKING:
    from tacit.use.report_samples import Sample

OTHER_FOLDERS = re.compile(r"(?<![\w.:/~<-])/(?:[\w.@+=,%-]+/)+")
"""The folders of an absolute path, unless their names hold spaces."""

Table = dict[str, list[float | None]]
"""Columns by name, as in the run's csv files; an empty field is None."""


@dataclass(frozen=True)
class Picture:
    """A picture for people: encoded bytes (PNG, JPEG or WebP), and what it shows in words."""

    image: bytes
    caption: str


@dataclass(frozen=True)
class Place:
    """A sample on the map: `x` and `y` in `[-1, 1]`, its label if it has one, its thumbnail (PNG, JPEG or WebP), its path."""

    x: float
    y: float
    label: str | None
    thumbnail: bytes
    path: str


@dataclass(frozen=True)
class Map:
    """Samples arranged so that alike ones lie near each other; `method` and `note` say how and how to read it."""

    places: Sequence[Place]
    method: str
    note: str = ""


@dataclass(frozen=True)
class Found:
    """A sample among the neighbours of another; `score` is the cosine similarity, None for the one that was looked for."""

    path: str
    thumbnail: bytes
    score: float | None = None
    label: str | None = None


@dataclass(frozen=True)
class Neighbours:
    """A sample and those nearest to it, nearest first."""

    query: Found
    found: Sequence[Found]


@dataclass(frozen=True)
class Setting:
    """A resolved value of the run and where it came from: `paper`, `given`, `auto: reason`, or nothing known."""

    name: str
    value: str
    origin: str = ""


@dataclass
class ReportContent:
    """Everything that a report shows; what is empty is left out of the page, or said to be missing where a reader expects it.

    Attributes:
        title: heading of the page.
        command: what was typed to make the run.
        folder: the run folder, as a person would type it.
        verdict: `verdict.json`: verdict, reasons, advice, figures, baselines by encoder, step.
        metrics, figures, speed: the columns of `metrics.csv`, `figures.csv`, `speed.csv`.
        evaluations: records `{protocol, metric, value, encoder, data, split, seed, seconds}`.
        pictures: the method's own pictures.
        map, neighbours: made by the verb that has an encoder, see `report_samples`.
        skipped: path and reason of every file that could not be read.
        settings: the resolved configuration.
        environment: versions, hardware, fingerprints, by name.
    """

    title: str
    command: str = ""
    folder: str = "RUN"
    verdict: dict[str, Any] = field(default_factory=dict)
    metrics: Table = field(default_factory=dict)
    figures: Table = field(default_factory=dict)
    speed: Table = field(default_factory=dict)
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    map: Map | None = None
    neighbours: list[Neighbours] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    settings: list[Setting] = field(default_factory=list)
    environment: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_folder(cls, folder: str | os.PathLike[str]) -> ReportContent:
        """Read what lies in a run folder. What a run has not written yet is no error: a report can be made at any time."""
        run = RunFolder.existing(Path(folder))
        config, environment = run.read_config(), artefacts.environment(run)
        command = str(environment.pop("command", ""))  # Python callers leave a bare `tacit`, which says nothing.
        told = partial(_without_folders, folders=_folders(config, run))
        verdict = artefacts.verdict(run)
        return cls(
            title=_title(config, run.path),
            command=told(command) if " " in command else "",
            folder=_as_typed(run.path),
            verdict=verdict | {name: [told(line) for line in verdict.get(name, [])] for name in ("reasons", "advice")},
            metrics=read_table(run.metrics),
            figures=read_table(run.figures),
            speed=read_table(run.speed),
            evaluations=[record for path in sorted(run.evaluations.glob("*.json")) for record in artefacts.records(path)],
            pictures=_pictures(run),
            skipped=[(told(name), told(reason)) for name, reason in _skipped(run.skipped)],
            settings=[Setting(setting.name, told(setting.value), told(setting.origin)) for setting in settings(config)],
            environment={name: told(str(value)) for name, value in flat(environment).items()},
        )


def render(content: ReportContent, path: str | os.PathLike[str], samples: Sequence[Sample] = ()) -> None:
    """Write the report as one self-contained HTML page under 6 MB, atomically; `samples` are shown one by one."""
    from tacit.use.report_page import page

    write_bytes(path, page(content, samples))


def settings(config: Mapping[str, Any]) -> list[Setting]:
    """The resolved configuration as rows: dotted names, values as in the file, origins from the table `origin`."""
    origins = flat(config.get("origin", {}))
    values = flat({table: content for table, content in config.items() if table != "origin"})
    return [Setting(name, _shown(value), str(origins.get(name, ""))) for name, value in values.items()]


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as one, with dotted names."""
    rows: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            rows.update(flat(value, f"{prefix}{name}."))
        else:
            rows[prefix + name] = value
    return rows


def _title(config: Mapping[str, Any], folder: Path) -> str:
    method, source = config.get("run", {}).get("method"), config.get("data", {}).get("path")
    return f"{method} on {Path(str(source)).name}" if method and source else folder.resolve().name


def _as_typed(folder: Path) -> str:
    """The folder from here (`runs/first`), or its name alone where it lies farther away: pages travel."""
    relative = Path(os.path.relpath(folder))
    return folder.resolve().name if relative.parts[0] == ".." or len(relative.parts) > 2 else str(relative)


def _folders(config: Mapping[str, Any], run: RunFolder) -> list[str]:
    """The folders of this machine that a run knows of, the longest first."""
    named = [value for value in flat(config).values() if isinstance(value, str) and value.startswith("/")]
    inside = [str(run.path.absolute()), *(os.path.dirname(name) for name in named), os.getcwd(), os.path.expanduser("~")]
    return sorted({folder for folder in inside if len(folder) > 1}, key=len, reverse=True)


def _without_folders(text: str, folders: Sequence[str]) -> str:
    """The text with the last parts of paths alone: pages travel."""
    for folder in folders:
        text = text.replace(f"{folder}/", "").replace(folder, os.path.basename(folder))
    return OTHER_FOLDERS.sub("", text)


def _pictures(run: RunFolder) -> list[Picture]:
    """The pictures that `captions.json` names, in its order; those that are gone are left out."""
    found = []
    for name, caption in artefacts.captions(run).items():
        try:
            with opened(run.pictures / name) as file:
                found.append(Picture(file.read(), caption))
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as problem:
            raise TacitError(f"cannot read {run.pictures / name} ({said(problem)}); restore it or remove it") from problem
    return found


def _skipped(path: Path) -> list[tuple[str, str]]:
    if not path.is_file():
        return []
    rows = [line.split("\t", 1) for line in read_text(path, errors="replace").splitlines() if line]
    return [(row[0], row[1] if len(row) > 1 else "") for row in rows if row != ["path", "reason"]]


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_shown, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)
