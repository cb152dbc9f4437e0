"""Quality per minute: hosts with `--recipe auto` on small sets, beside the untrained encoder, raw pixels and others.

    python benchmarks/quality.py minutes DATA --minutes 1 2 4 10 20 [--peers PEERS/bin/python]
    python benchmarks/quality.py samples DATA --samples 20000
    python benchmarks/quality.py unseen DATA --minutes 2
    python benchmarks/quality.py init DATA --start cifar10_subset --minutes 4
    python benchmarks/quality.py supervised DATA --hosts simclr mae --minutes 4 --labels all 1 5 10
    python benchmarks/quality.py --table

DATA is a folder with the sets. Adds to `benchmarks/results/quality.json` cell by cell and repeats none that is there; a cell is
a set, a host, minutes or samples seen, a seed and the number of threads. Where minutes are counted nothing else may compute on
the same cores: either one job on the machine, or one a core (`OMP_NUM_THREADS=1 taskset -c 0 ... --seeds 0 --threads 1`).
`--runs FOLDER` keeps the runs, so that `init` and `supervised` need not train again what `minutes` has trained. Peers are
lightly's examples, trained for the same minutes in an environment of their own: `views.py` says how it is made,
`peers/train.py` what they do. `python docs/generated.py` writes tables and picture into `docs/`, `plot` the picture alone.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cells import ENCODERS, Cells, Row, attempted, figures, measured, place, title, trained
from chart import PICTURE, chart
from pairs import RESULTS
from quality_table import LIGHTLY, tables
from sets import SETS, UNSEEN, Sets
from supervised import supervised, with_labels

from tacit.core import files
from tacit.data.open import measure, open_data
from tacit.evaluation.features import Features
from tacit.evaluation.knn import knn
from tacit.evaluation.linear import linear
from tacit.evaluation.task import Task
from tacit.use.evaluate import decoded_once, subject
from tacit.use.run import OpenRun

FILE = RESULTS / "quality.json"
HOSTS = ("simclr", "moco-v3", "dino", "mae")
LABELS = ("all", "1", "5", "10")
PEERS = ("simclr", "dino", "mae")


def peer(cell: Row, sets: Sets, python: str) -> Row:
    """An example of lightly's, for as many minutes."""
    method = cell["host"].removeprefix(LIGHTLY)
    largest = 32 if cell["minutes"] <= 4 and method != "mae" else 64  # as `auto` has it on a processor
    given = {name: cell[name] for name in ("minutes", "seed", "threads")}
    return taught(sets, cell["data"], python, method, **given, largest=largest)


def taught(sets: Sets, name: str, python: str, method: str, seed: int, **given: Any) -> Row:
    """An example of lightly's, trained on a set as it is `given` to `peers/train.py`, and judged as the hosts are."""
    folder = sets.pictures(name)
    words = [word for option, value in (given | {"seed": seed}).items() for word in (f"--{option}", str(value))]
    script = str(Path(__file__).parent / "peers/train.py")
    done = subprocess.run([python, "-W", "ignore", script, method, str(folder), *words], stdout=subprocess.PIPE, check=True)
    features = torch.from_numpy(np.load(folder / "features.npy"))
    if not features.isfinite().all():
        return {"stopped": "its features are not finite"}
    data = open_data(sets(name))
    split = Task.of(name, data, measure(data), seed=seed).split
    labelled = split.labelled(Features(torch.arange(len(features)), features))
    row = json.loads(done.stdout.splitlines()[-1])
    for protocol, outcome in (("knn", knn(labelled)), ("linear", linear(labelled, seed))):
        found = (("", "top1"), ("balanced ", "balanced"))
        row |= {f"{protocol} {which}run": round(outcome.values[metric], 4) for which, metric in found}
    return row


def began(cell: Row, data: str) -> Row:
    """The cell of `minutes` whose run another part goes on from."""
    return {"part": "minutes", "data": data} | {name: cell[name] for name in ("host", "minutes", "seed", "threads")}


def from_weights(cell: Row, sets: Sets, runs: Path) -> Row:
    """A run that starts from the weights of one on another set, which took as many minutes."""
    with place(runs, title(began(cell, cell["start"]))) as out:
        first, _ = trained(cell["host"], sets(cell["start"]), out, {"seed": cell["seed"]}, minutes=cell["minutes"])
        encoder, size = (first.config["train"][name] for name in ("encoder", "size"))
        views = {"size": size} if "/" in encoder else {}  # as many patches; the encoder comes with the weights
        return measured(cell, sets(cell["data"]), init=str(out), **views)


def from_labels(cell: Row, sets: Sets, runs: Path) -> Row:
    """The same encoder from labels alone, for as many minutes; and what the pretrained one makes of as many labels."""
    data, minutes, seed, labels = sets(cell["data"]), cell["minutes"], cell["seed"], cell["labels"]
    with place(runs, title(began(cell, cell["data"]))) as out:
        run, row = trained(cell["host"], data, out, {"seed": seed}, minutes=minutes)
        opened, collection = OpenRun(out), open_data(data)
        task = decoded_once(Task.of(cell["data"], collection, opened.spec, side=opened.side(collection), seed=seed))
        known = task if labels == "all" else with_labels(task, int(labels), seed)
        for name, encoder in (("supervised", opened.untrained), ("fine-tuned", opened.encoder)):
            tuning = subject(opened, encoder, seed).tuning
            assert tuning is not None
            found = supervised(tuning, known, minutes, row["precision"], seed, layer_decay=name == "fine-tuned")
            row |= {name: round(found["top1"], 4), f"{name} balanced": round(found["balanced"], 4)}
            row[f"{name} samples"] = found["samples"]
        probed = figures(run.evaluate(data, protocols=["linear" if labels == "all" else "fewshot"], seed=seed))
        said = "linear " if labels == "all" else f"fewshot {labels} per class "
        return row | {f"linear {of}": probed[said + of] for of in ENCODERS if said + of in probed}


def cells(asked: argparse.Namespace) -> Iterator[Row]:
    """What was asked for, seed by seed."""
    hosts = [*asked.hosts, *(f"{LIGHTLY}{name}" for name in PEERS if asked.peers and asked.part == "minutes")]
    limit = "samples" if asked.part == "samples" else "minutes"
    sets = asked.sets or (UNSEEN if asked.part == "unseen" else SETS)
    for seed, most, data, host in product(asked.seeds, getattr(asked, limit), sets, hosts):
        cell = {"part": asked.part, "data": data, "host": host, limit: most, "seed": seed, "threads": asked.threads}
        if asked.part == "supervised":
            yield from (cell | {"labels": labels} for labels in asked.labels)
        elif asked.part != "init":
            yield cell
        elif data != asked.start:
            yield cell | {"start": asked.start}


def measure_cell(cell: Row, sets: Sets, asked: argparse.Namespace, made: Path) -> Row:
    """What is to be known of a cell."""
    if cell["host"].startswith(LIGHTLY):
        return peer(cell, sets, asked.peers)
    if cell["part"] == "init":
        return from_weights(cell, sets, asked.runs or made / "runs")
    if cell["part"] == "supervised":
        return from_labels(cell, sets, asked.runs or made / "runs")
    return measured(cell, sets(cell["data"]), asked.runs)


def main() -> None:
    """Measure what is not in the results yet, and print the tables."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("part", nargs="?", choices=("minutes", "samples", "unseen", "init", "supervised", "plot"))
    words.add_argument("folder", nargs="?", type=Path, help="where the sets lie")
    words.add_argument("--sets", nargs="+", choices=SETS + UNSEEN, help="all of the part by default")
    words.add_argument("--hosts", nargs="*", choices=HOSTS, default=HOSTS)
    words.add_argument("--minutes", nargs="+", type=float, default=[4.0])
    words.add_argument("--samples", nargs="+", type=int, default=[20_000])
    words.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    words.add_argument("--labels", nargs="+", choices=LABELS, default=LABELS, help="of each class, for `supervised`")
    words.add_argument("--start", choices=SETS, default=SETS[0], help="the set whose run `init` starts from")
    words.add_argument("--peers", help="an interpreter with lightly: its examples are trained, too")
    words.add_argument("--threads", type=int, default=torch.get_num_threads())
    words.add_argument("--runs", type=Path, help="keep the runs here, and take those that lie here")
    words.add_argument("--file", type=Path, default=FILE)
    words.add_argument("--table", action="store_true", help="only print the tables of what was measured")
    asked = words.parse_args()
    torch.set_num_threads(asked.threads)
    results = Cells(asked.file)
    if asked.part == "plot":
        files.write_text(PICTURE, chart(results.content["runs"]))
    elif asked.part and not asked.table:
        if asked.folder is None:
            words.error("which folder do the sets lie in?")
        with tempfile.TemporaryDirectory() as made:
            sets = Sets(asked.folder, Path(made))
            for cell in cells(asked):
                if results.missing(cell):
                    results.add(cell, attempted(cell, partial(measure_cell, cell, sets, asked, Path(made))))
    for name, text in tables(results.content).items():
        print(f"## {name}\n\n{text}\n")


if __name__ == "__main__":
    main()
