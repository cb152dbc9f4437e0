"""A run's encoder on labelled data, beside the untrained encoder and raw input."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from tacit.core import files
from tacit.core.draws import Draws
from tacit.core.errors import one_of
from tacit.data.collection import Collection
from tacit.data.spec import Batch
from tacit.evaluation.input import raw_input
from tacit.evaluation.protocol import DEFAULT, Record, run_protocols
from tacit.evaluation.subject import Subject, Tuning
from tacit.evaluation.task import Task
from tacit.nn.encoder import Encoder
from tacit.use.run import OpenRun
from tacit.views.image import CentreView, ImageView
from tacit.views.probe import probe_view


def evaluate(
    run: OpenRun,
    collection: Collection,
    name: str,
    protocols: Sequence[str] | None = None,
    baselines: str = "both",
    seed: int = 0,
) -> list[Record]:
    """Run protocols, and keep their records in the run's folder under `evaluations/NAME.json`.

    Args:
        collection: labelled samples.
        name: what records and file call the data.
        protocols: their names; all but fine-tuning by default.
        baselines: `both` or `none`.
        seed: of splits and draws.
    """
    one_of("baselines", baselines, ("both", "none"))
    collection = collection.with_channels(run.spec.channels)
    subjects = {"run": subject(run, run.encoder, seed)}
    if baselines == "both":
        subjects |= {"untrained": subject(run, run.untrained, seed), "input": raw_input(run.spec, seed)}
    task = Task.of(name, collection, run.spec, seed=seed)
    records = run_protocols(protocols or DEFAULT, subjects, task, seed)
    path = run.folder.evaluations / f"{name}.json"
    asked = {record.protocol for record in records}
    earlier = [record for record in files.read_json(path) if record["protocol"] not in asked] if path.exists() else []
    files.write_json(path, [*earlier, *(record.to_dict() for record in records)])
    return records


def subject(run: OpenRun, encoder: Encoder, seed: int) -> Subject:
    """An encoder as protocols see it."""
    probe = probe_view(run.spec, run.size)

    @torch.no_grad()
    def second(batch: Batch) -> Tensor:
        batch = batch.to(run.device)
        return encoder(probe(batch, Draws(seed, 0, batch.ids, "second/"), run.spec)).pooled.float()

    tuning = Tuning(lambda: copy.deepcopy(encoder), ImageView(run.size, area=(0.2, 1.0)), CentreView(run.size))
    return Subject(run.encode(encoder), second, tuning)


def table(records: Sequence[Record]) -> Table:
    """The main figures of every protocol: one row each, one column an encoder, the best in bold."""
    shown: dict[tuple[str, str], dict[str, float | None]] = {}
    for record in records:
        shown.setdefault((record.protocol, record.metric), {})[record.encoder] = record.value
    encoders: list[Any] = [name for name in ("run", "untrained", "input") if any(name in row for row in shown.values())]
    out = Table("protocol", "figure", *encoders)
    for (protocol, metric), row in shown.items():
        values = [value for value in row.values() if value is not None]
        cells = []
        for name in encoders:
            value = row.get(name)
            text = "" if value is None else f"{value:.1%}" if protocol != "figures" else f"{value:.3g}"
            best = protocol != "figures" and value is not None and value == max(values)
            cells.append(f"[bold]{text}[/bold]" if best else text)
        out.add_row(protocol, metric, *cells)
    return out
