"""A run's encoder on labelled data, beside the untrained encoder and raw input."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from tacit.core import files
from tacit.core.draws import Draws
from tacit.core.errors import one_of
from tacit.data import store as stores
from tacit.data.cache import cache_folder
from tacit.data.collection import Collection
from tacit.data.skipped import MAX_BAD
from tacit.data.spec import Batch
from tacit.evaluation.input import raw_input
from tacit.evaluation.protocol import DEFAULT, Record, run_protocols
from tacit.evaluation.readout import read_out
from tacit.evaluation.subject import Subject, Tuning
from tacit.evaluation.task import Task
from tacit.nn.encoder import Encoder
from tacit.nn.norms import settled
from tacit.use import artefacts
from tacit.use.run import OpenRun
from tacit.views.sight import sight

SETTLING = 1024
"""Training samples from which the untrained encoder has its batch statistics: enough for moments of a few hundred channels."""


def evaluate(
    run: OpenRun,
    collection: Collection,
    name: str,
    protocols: Sequence[str] | None = None,
    baselines: str = "both",
    seed: int = 0,
    features: str = "pooled",
    max_bad: float = MAX_BAD,
) -> list[Record]:
    """Run protocols, and keep their records in the run's folder under `evaluations/NAME.json`.

    Args:
        collection: labelled samples.
        name: what records and file call the data.
        protocols: their names; all but fine-tuning by default.
        baselines: `both` or `none`.
        seed: of splits and draws.
        features: which of the encoder's outputs; see `evaluation.readout`.
        max_bad: a larger share of unreadable samples is an error.
    """
    one_of("baselines", baselines, ("both", "none"))
    collection = collection.with_channels(run.spec.channels)
    path = run.folder.evaluations / f"{name}.json"
    files.try_writing(path)  # before it has taken long
    how: dict[str, Any] = {"side": run.side(collection), "window": run.window, "max_bad": max_bad}
    task = decoded_once(Task.of(name, collection, run.spec, seed=seed, **how))
    subjects = {"run": subject(run, run.encoder, seed, features)}
    if baselines == "both":
        subjects |= {"untrained": subject(run, untrained(run, task), seed, features), "input": raw_input(run.spec, seed)}
    records = run_protocols(protocols or DEFAULT, subjects, task, seed)
    asked = {record.protocol for record in records}
    earlier = [record for record in artefacts.records(path) if record["protocol"] not in asked]
    files.write_json(path, [*earlier, *(record.to_dict() for record in records)])
    return records


def decoded_once(task: Task) -> Task:
    """The same task, with a store that all passes read from, where most of the collection is needed and a store pays."""
    if 2 * len(task.split.ids) < len(task.collection):
        return task
    folder = cache_folder() / "stores"
    store, _ = stores.prepare(task.collection, task.side, folder, stores.default_budget(folder), task.max_bad)
    return replace(task, store=store)


def untrained(run: OpenRun, task: Task) -> Encoder:
    """A run's encoder before training, its batch statistics settled on the training samples: an honest baseline has no less.

    They would have settled so if training had moved no weight.
    """
    train = task.split.train
    return settled(run.untrained, map(run.seen, task.batches(train[:: -(-len(train) // SETTLING) or 1])))


def subject(run: OpenRun, encoder: Encoder, seed: int, features: str = "pooled") -> Subject:
    """An encoder that sees what the run's own sees, for the protocols."""
    shown = sight(run.spec.kind)
    probe = shown.crops(run.extent)

    @torch.no_grad()
    def second(batch: Batch) -> Tensor:
        batch = batch.to(run.device)
        return read_out(encoder, probe(batch, Draws(seed, 0, batch.ids, "second/"), run.spec), features).float()

    # The run knows whether a mirror image means the same; where its method does not mirror at all, nobody has said so.
    mirrored = float(run.folder.read_config()["method"].get("flip", 0.0))
    tuning = Tuning(lambda: copy.deepcopy(encoder), shown.tuning(run.extent, mirrored), run.still)
    return Subject(run.encode(features, encoder), second, tuning, features=features)


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
