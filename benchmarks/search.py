"""How far `auto` is from the best of a random search: the same host, data and time, options drawn at random around it.

    python benchmarks/search.py dino sample:omniglot_small --minutes 4 --configurations 20

The first run is `auto` itself. Adds to `benchmarks/results/search.json` run by run and repeats none that is there; `--table`
prints what was found. One search at a time where minutes are counted; with `--samples` several may go side by side, each into a
`--file` of its own.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from pathlib import Path
from typing import Any

import layout
import torch
from pairs import RESULTS

import tacit
from tacit.core import files
from tacit.train.machine import describe

RATES = [1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 4e-3, 8e-3]
BATCHES = [32, 64, 128, 256]
SPACES: dict[str, dict[str, list[Any]]] = {
    "simclr": {
        "lr": RATES, "batch": BATCHES[1:], "temperature": [0.05, 0.1, 0.2, 0.5], "area": [0.08, 0.2, 0.35, 0.5],
        "jitter": [0.25, 0.5, 0.8, 1.0], "weight_decay": [0.0, 0.02, 0.1], "head_out": [64, 128, 256],
    },
    "moco-v3": {
        "lr": RATES, "batch": BATCHES[1:], "temperature": [0.1, 0.2, 0.5], "area": [0.08, 0.2, 0.35], "jitter": [0.5, 1.0],
        "momentum": [0.9, 0.96, 0.98, 0.99, 0.996], "weight_decay": [0.0, 0.02, 0.1],
    },
    "dino": {
        "lr": RATES, "batch": BATCHES[:3], "prototypes": [128, 512, 1024, 4096], "head_norm": [False, True],
        "momentum": [0.9, 0.96, 0.98, 0.99, 0.996], "local_crops": [0, 2, 4], "global_area": [0.2, 0.4],
        "teacher_temperature_start": [0.02, 0.04, 0.07], "centre_momentum": [0.8, 0.9, 0.95], "jitter": [0.5, 1.0],
    },
    "mae": {
        "lr": RATES, "batch": BATCHES, "mask_ratio": [0.5, 0.6, 0.75], "area": [0.2, 0.35, 0.5, 0.8], "beta2": [0.95, 0.99],
        "decoder_width": [64, 128], "decoder_depth": [1, 2, 4], "norm_pix": [True, True, False],
    },
}  # fmt: skip
"""What may be set otherwise, and to what; every other value stays as `auto` has it."""


def configurations(host: str, count: int, seed: int) -> list[dict[str, Any]]:
    """`auto` and then random ones; the teacher's two temperatures go together."""
    drawn = random.Random(f"{host} {seed}")
    made: list[dict[str, Any]] = [{}]
    for _ in range(count):
        given = {name: drawn.choice(values) for name, values in SPACES[host].items()}
        if "teacher_temperature_start" in given:
            given["teacher_temperature"] = given["teacher_temperature_start"]
        made.append(given)
    return made


def measure(host: str, data: str, budget: dict[str, Any], given: dict[str, Any], seed: int) -> dict[str, Any]:
    """One run and what k-NN and the linear probe say of it on test."""
    row: dict[str, Any] = {"host": host, "data": Path(data).name, **budget, "given": given, "seed": seed}
    options = given | {"seed": seed, "stop_on": "none"}
    with tempfile.TemporaryDirectory() as folder:
        try:
            run = tacit.pretrain(host, data, out=Path(folder) / "run", options=options, **budget)
        except tacit.TacitError as refused:
            return row | {"refused": str(refused).replace(folder, "")}
        records = run.evaluate(data, protocols=["knn", "linear"], seed=seed)
        train = run.config["train"]
        return row | {
            "verdict": run.verdict["verdict"],
            "loss": run.verdict["reasons"][-1],
            "took": {name: train[name] for name in ("encoder", "batch", "steps", "lr", "precision")},
            **{f"{r.protocol} {r.encoder}": round(r.value, 4) for r in records if r.metric == "top1"},
        }


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: for each search that began with `auto` its figures, the best found, and both again with other seeds."""
    lines = []
    for key in dict.fromkeys((row["data"], row["host"], _budget(row)) for row in rows):
        of = [row for row in rows if (row["data"], row["host"], _budget(row)) == key and "knn run" in row]
        own = next((row for row in of if not row["given"]), None)
        if own is None:
            continue
        searched = [row for row in of if row["seed"] == own["seed"]]
        best = max(searched, key=lambda row: row["knn run"])
        options = ", ".join(f"{name}={value}" for name, value in best["given"].items()) or "those of auto"
        cells = [
            str(len(searched) - 1),
            _figures(own, "run"),
            _figures(best, "run"),
            options,
            *(_again(side, of) for side in (own, best)),
            _figures(own, "untrained"),
            _figures(own, "input"),
        ]
        lines.append([*key, *cells])
    head = ["data", "host", "budget", "tried", "auto", "best k-NN of the search", "its options", "auto again", "best again"]
    return layout.table([*head, "untrained", "raw input"], lines)


def _again(row: dict[str, Any], of: list[dict[str, Any]]) -> str:
    """The same options with other seeds, where that was measured."""
    return ", ".join(_figures(r, "run") for r in of if r["given"] == row["given"] and r["seed"] != row["seed"]) or "not run"


def _budget(row: dict[str, Any]) -> str:
    return f"{row['samples']:,} samples" if "samples" in row else f"{row['minutes']:g} min"


def _figures(row: dict[str, Any], encoder: str) -> str:
    return " / ".join(f"{100 * row[f'{protocol} {encoder}']:.1f}" for protocol in ("knn", "linear"))


def main() -> None:
    """Run what is not in the results yet, and print the table."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("host", nargs="?", choices=list(SPACES))
    words.add_argument("data", nargs="?")
    budget = words.add_mutually_exclusive_group()
    budget.add_argument("--minutes", type=float)
    budget.add_argument("--samples", type=int)
    words.add_argument("--configurations", type=int, default=20)
    words.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="one configuration of your own instead")
    words.add_argument("--seed", type=int, default=0)
    words.add_argument("--threads", type=int, default=torch.get_num_threads())
    words.add_argument("--file", type=Path, default=RESULTS / "search.json")
    words.add_argument("--table", action="store_true", help="only print the table of what was measured")
    asked = words.parse_args()
    torch.set_num_threads(asked.threads)
    content = json.loads(asked.file.read_text()) if asked.file.exists() else {"machine": describe(), "runs": []}
    own = {name: json.loads(value) for name, _, value in (pair.partition("=") for pair in asked.set)}
    if asked.host and asked.data and not asked.table:
        limit = {"samples": asked.samples} if asked.samples else {"minutes": asked.minutes or 4.0}
        for given in [own] if own else configurations(asked.host, asked.configurations, asked.seed):
            key = {"host": asked.host, "data": Path(asked.data).name, **limit, "given": given, "seed": asked.seed}
            if any(all(row.get(name) == value for name, value in key.items()) for row in content["runs"]):
                continue
            content["runs"].append(measure(asked.host, asked.data, limit, given, asked.seed))
            files.write_json(asked.file, content)
            print(json.dumps(content["runs"][-1]), flush=True)
    print(table(content["runs"]))


if __name__ == "__main__":
    main()
