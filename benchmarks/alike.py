"""Nothing but the mathematics: each host beside lightly's example with the same architecture, batch, views, rates, precision,
and number of images.

    python benchmarks/alike.py DATA --python PEERS/bin/python --seeds 0 1 2

DATA is the folder that the sets lie in; `views.py` says how the others' environment is made. Both sides are trained on the same
part of a set, in float32, at a constant rate and without a warm-up, as the examples are, and judged by the same protocols.
What still differs: draws and first weights, how an image is resampled, that blur is in proportion to the view here (0.3 of 32
pixels at the most) and up to 2 pixels there, that views of one size go through the network together here and one after the
other there, and that the head of DINO's teacher starts from values of its own there, and not from its student's as published.
`dino-even` is without two of these: nobody blurs, and both teachers start as their students. Adds to
`benchmarks/results/alike.json` run by run and repeats none that is there; `python docs/generated.py` puts the table into
`docs/results.md`.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import layout
import torch
from cells import Cells, Row, attempted, figures, mean
from pairs import RESULTS
from quality import taught
from sets import Sets

import tacit
from tacit.nn.resnet import ResNet

FILE = RESULTS / "alike.json"
SET = "cifar10_subset"
SIDES = ("tacit", "lightly")
SEEN = {"simclr": 51_200, "dino": 25_600, "dino-even": 25_600, "mae": 25_600}
"""Images, each counted as often as it is shown."""


class ResNet18(ResNet):
    """With the stem of large images, as the examples have it at 32 pixels, too; tacit would take the small one."""

    def __init__(self, channels: int, size: tuple[int, int]) -> None:  # noqa: ARG002 - whatever their size
        super().__init__(channels, (2, 2, 2, 2), stem="imagenet")


CONSTANT: dict[str, Any] = {"precision": "float32", "size": 32, "schedule": "constant", "warmup": 0, "stop_on": "none"}
RESNET, IMAGENET = {"encoder": f"{Path(__file__).resolve()}:ResNet18"}, {"normalise": "imagenet"}
EXAMPLES: dict[str, dict[str, Any]] = {
    "simclr": {
        **RESNET, **IMAGENET, "batch": 256, "optimiser": "sgd", "lr": 0.06, "momentum": 0.0, "weight_decay": 0.0,
        "head_layers": 2, "temperature": 0.5, "reduction": "paper",
    },
    "dino": {
        **RESNET, **IMAGENET, "batch": 64, "optimiser": "adamw", "lr": 1e-3, "weight_decay": 0.0, "weight_decay_end": 0.0,
        "clip": 0.0, "prototypes": 2048, "head_width": 512, "bottleneck": 64, "momentum": 0.99, "momentum_rises": False,
        "freeze_last": 0.0, "local_crops": 6, "local_size": 16, "drop_path": 0.0,
    },
    "mae": {
        "encoder": "vit-tiny/4", "batch": 256, "optimiser": "adamw", "lr": 1.5e-4, "weight_decay": 0.01, "beta2": 0.999,
        "norm_pix": False, "decoder_width": 192, "decoder_depth": 2, "decoder_heads": 3, **IMAGENET,
    },
}  # fmt: skip
"""What lightly's examples do, where that is not what the papers say."""
EXAMPLES["dino-even"] = EXAMPLES["dino"] | {"blur": 0.0}


def ours(cell: Row, data: str) -> Row:
    """A run of tacit in the example's shape."""
    with tempfile.TemporaryDirectory() as folder:
        options = CONSTANT | EXAMPLES[cell["host"]] | {"seed": cell["seed"]}
        host, out = cell["host"].removesuffix("-even"), Path(folder) / "run"
        run = tacit.pretrain(host, data, out=out, recipe="paper", options=options, samples=cell["samples"])
        return figures(run.evaluate(data, protocols=["knn", "linear"], seed=cell["seed"]))


def table(rows: list[Row]) -> str:
    """Markdown: k-NN and linear probe of both sides, and whether ours is within a deviation of theirs."""
    lines = []
    for host, samples, protocol in dict.fromkeys((r["host"], r["samples"], p) for r in rows for p in ("knn", "linear")):
        found = {
            side: [r[f"{protocol} run"] for r in rows if (r["host"], r["samples"], r["side"]) == (host, samples, side)]
            for side in SIDES
        }
        untrained = [r[f"{protocol} untrained"] for r in rows if r["host"] == host and r["side"] == "tacit"]
        said = "-"
        if min(map(len, found.values())) > 1:
            gain = statistics.fmean(found["tacit"]) - statistics.fmean(found["lightly"])
            allowed = max(statistics.stdev(values) for values in found.values())
            said = f"{'yes' if gain >= -allowed else 'no'} ({100 * gain:+.1f}, {-100 * allowed:.1f} allowed)"
        name = "k-NN" if protocol == "knn" else "linear"
        lines.append([host, f"{samples:,}", name, mean(untrained), *(mean(values) for values in found.values()), said])
    return layout.table(["method", "images seen", "", "untrained", *SIDES, "not worse"], lines)


def main() -> None:
    """Measure what is not in the results yet, and print the table."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("folder", type=Path, help="where the sets lie")
    words.add_argument("--python", default="python3", help="an interpreter with lightly")
    words.add_argument("--hosts", nargs="+", choices=EXAMPLES, default=list(EXAMPLES))
    words.add_argument("--samples", type=int, help="images seen, where it is not to be the usual number")
    words.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    words.add_argument("--threads", type=int, default=torch.get_num_threads())
    words.add_argument("--file", type=Path, default=FILE)
    asked = words.parse_args()
    torch.set_num_threads(asked.threads)
    results = Cells(asked.file)
    with tempfile.TemporaryDirectory() as made:
        sets = Sets(asked.folder, Path(made))
        for seed, host, side in product(asked.seeds, asked.hosts, SIDES):
            cell = {"host": host, "side": side, "samples": asked.samples or SEEN[host], "seed": seed}
            if results.missing(cell):
                theirs = partial(taught, sets, SET, asked.python, host, seed, samples=cell["samples"], threads=asked.threads)
                results.add(cell, attempted(cell, theirs if side == "lightly" else partial(ours, cell, sets(SET))))
    print(table(results.content["runs"]))


if __name__ == "__main__":
    main()
