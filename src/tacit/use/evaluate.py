"""A run's encoder on labelled data, beside the untrained encoder and raw input."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
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
from tacit.data.text.wording import every_caption
from tacit.evaluation.dense import DENSE, reader, run_dense, usual_dense
from tacit.evaluation.dense_task import split_masked
from tacit.evaluation.input import raw_input
from tacit.evaluation.protocol import PROTOCOLS, Record, run_protocols, usual
from tacit.evaluation.readout import WHITENED, read_out
from tacit.evaluation.subject import Joint, Subject, Tuning
from tacit.evaluation.task import Task
from tacit.nn.encoder import Encoder
from tacit.nn.norms import settled
from tacit.use import artefacts
from tacit.use.report_words import ENCODERS
from tacit.use.run import OpenRun
from tacit.use.towers import Towers
from tacit.use.whiten import whitened
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
        protocols: their names; see `protocol.usual` and `dense.usual_dense` for the default.
        baselines: `both` or `none`.
        seed: of splits and draws.
        features: which of the encoder's outputs, see `evaluation.readout`; or `whitened`, as then raw input is, too.
        max_bad: a larger share of unreadable samples is an error.
    """
    one_of("baselines", baselines, ("both", "none"))
    collection = collection.with_channels(run.spec.channels)
    path = run.folder.evaluations / f"{name}.json"
    files.try_writing(path)  # before it has taken long
    asked = [one_of("protocol", each, (*PROTOCOLS, *DENSE)) for each in protocols or ()]
    dense = [each for each in asked if each in DENSE] if asked else usual_dense(run.spec, collection)
    samples = [each for each in asked if each not in DENSE]
    records: list[Record] = []
    if samples or not asked:
        may_lack_labels = not asked and bool(dense)
        records += evaluate_samples(run, collection, name, samples, baselines, seed, features, max_bad, may_lack_labels)
        _keep(path, records)
    if dense:
        records += evaluate_dense(run, collection, name, dense, baselines, seed, max_bad)
        _keep(path, records)
    return records


def evaluate_samples(
    run: OpenRun,
    collection: Collection,
    name: str,
    protocols: Sequence[str],
    baselines: str,
    seed: int,
    features: str,
    max_bad: float,
    may_lack_labels: bool = False,
) -> list[Record]:
    """The protocols that judge whole samples, with the arguments of `evaluate`; the usual ones, where none is named.

    With `may_lack_labels`, those that need none run where there are none; else that is an error, but for pairs.
    """
    towers = Towers(run) if run.folder.reader.is_file() else None
    captioned = towers is not None and any(True for _ in every_caption(collection.index.table))
    how: dict[str, Any] = {"side": run.side(collection), "window": run.window, "windows": run.windows, "max_bad": max_bad}
    task = decoded_once(Task.of(name, collection, run.spec, seed=seed, unlabelled=captioned or may_lack_labels, **how))
    subjects = {"run": subject(run, run.encoder, seed, features, towers and towers.trained())}
    if baselines == "both":
        before = untrained(run, task)
        subjects["untrained"] = subject(run, before, seed, features, towers and towers.untrained(before))
        raw = raw_input(run.spec, seed)
        subjects["input"] = whitened(run, raw) if features == WHITENED else raw
    return run_protocols(protocols or usual(task, captioned), subjects, task, seed)


def evaluate_dense(
    run: OpenRun, collection: Collection, name: str, protocols: Sequence[str], baselines: str, seed: int, max_bad: float
) -> list[Record]:
    """The protocols that judge by labels of points, pixels or voxels, with the arguments of `evaluate`."""
    split, side = split_masked(collection, seed), run.side(collection)
    readers = {"run": reader(run.encoder, run.spec, run.extent)}
    task = decoded_once(Task(name, collection, run.spec, split, side=side, max_bad=max_bad, window=run.window))
    if baselines == "both":
        readers["untrained"] = reader(untrained(run, task), run.spec, run.extent)
        readers["input"] = reader(run.encoder, run.spec, run.extent, raw=True)
    return run_dense(protocols, readers, task, seed)


def _keep(path: Path, records: Sequence[Record]) -> None:
    """Beside those of other protocols; what these protocols said before is forgotten."""
    asked = {record.protocol for record in records}
    earlier = [record for record in artefacts.records(path) if record["protocol"] not in asked]
    files.write_json(path, [*earlier, *(record.to_dict() for record in records)])


def decoded_once(task: Task) -> Task:
    """The same task, with a store that all passes read from, where most of the collection is needed and a store pays."""
    if 2 * len(task.split.ids) < len(task.collection):
        return task
    folder = cache_folder() / "stores"
    store, _ = stores.prepare(task.collection, task.side, folder, stores.default_budget(folder), task.max_bad)
    return replace(task, store=store)


def untrained(run: OpenRun, task: Task) -> Encoder:
    """A run's encoder before training, its batch statistics settled on the training samples: an honest baseline has no less.

    They would have settled so if training had moved no weight. Where there are no labels to learn from, any samples do.
    """
    rows = task.split.train if len(task.split.train) else task.split.test
    return settled(run.untrained, map(run.seen, task.batches(rows[:: -(-len(rows) // SETTLING)])))


def subject(run: OpenRun, encoder: Encoder, seed: int, features: str = "pooled", joint: Joint | None = None) -> Subject:
    """An encoder that sees what the run's own sees, for the protocols."""
    if features == WHITENED:
        return whitened(run, subject(run, encoder, seed, joint=joint))
    shown = sight(run.spec.kind)
    probe = shown.crops(run.extent)

    @torch.no_grad()
    def second(batch: Batch) -> Tensor:
        batch = batch.to(run.device)
        return read_out(encoder, probe(batch, Draws(seed, 0, batch.ids, "second/"), run.spec), features).float()

    # The run knows whether a mirror image means the same; where its method does not mirror at all, nobody has said so.
    mirrored = float(run.folder.read_config()["method"].get("flip", 0.0))
    tuning = Tuning(lambda: copy.deepcopy(encoder), shown.tuning(run.extent, mirrored), run.still)
    return Subject(run.encode(features, encoder), second, tuning, joint, features=features)


def table(records: Sequence[Record]) -> Table:
    """The figures of every protocol: one row each, one column an encoder, of shares the best in bold; chance where known."""
    shown: dict[tuple[str, str], dict[str, float | None]] = {}
    for record in records:
        row = shown.setdefault((record.protocol, record.metric), {})
        row[record.encoder] = record.value
        if "chance" in record.detail:
            row["chance"] = record.detail["chance"]
    columns: list[Any] = [name for name in (*ENCODERS, "chance") if any(name in row for row in shown.values())]
    out = Table("protocol", "figure", *columns)
    for (protocol, metric), row in shown.items():
        share = protocol != "figures" and not metric.startswith(("mean_rank", "median_rank"))
        best = max((value for name in ENCODERS if (value := row.get(name)) is not None), default=None)
        cells = []
        for name in columns:
            value = row.get(name)
            text = "" if value is None else f"{value:.1%}" if share else f"{value:.3g}"
            bold = share and name in ENCODERS and value is not None and value == best
            cells.append(f"[bold]{text}[/bold]" if bold else text)
        out.add_row(protocol, metric, *cells)
    return out
