"""The papers' claims that can be seen at small scale, each on a few thousand small photographs, three seeds, equal epochs.

    python benchmarks/claims.py DATA --seeds 0 1 2

DATA is a folder of 32-pixel colour images with labels, split into `train` and `test`. Runs are counted in epochs, so that the
figures do not depend on the machine. Writes `benchmarks/results/claims.json`; a file that exists is added to, so that a
cut-off benchmark goes on. `--table` prints what was found.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pairs import RESULTS

import tacit
from tacit.core import files
from tacit.data.open import open_data
from tacit.data.spec import Batch, Spec
from tacit.evaluation.protocol import run_protocols
from tacit.evaluation.subject import Subject
from tacit.evaluation.task import Task
from tacit.methods.method import Method, Options
from tacit.methods.registry import method as method_class
from tacit.train import checkpoint
from tacit.train.config import Training, validated
from tacit.train.machine import describe
from tacit.train.session import build_method
from tacit.use.run import OpenRun

FILE = RESULTS / "claims.json"
SHARED: dict[str, Any] = {"stop_on": "none", "precision": "bfloat16", "size": 32, "held_back": 64, "checkpoint_every": "30m"}
CONTRAST = {"encoder": "resnet-mini", "batch": 128}
DINO = {"encoder": "resnet-mini", "batch": 64, "local_crops": 0}
MAE = {"encoder": "vit-mini/4", "batch": 128}


@dataclass(frozen=True)
class Run:
    host: str
    epochs: float
    options: dict[str, Any]


RUNS = {
    "simclr": Run("simclr", 8, CONTRAST),
    "simclr, linear head": Run("simclr", 8, CONTRAST | {"head_layers": 1}),
    "simclr, no head": Run("simclr", 8, CONTRAST | {"head_layers": 0}),
    "simclr, no colour": Run("simclr", 8, CONTRAST | {"jitter": 0.0, "grey": 0.0}),
    "simclr, batch 32": Run("simclr", 8, CONTRAST | {"batch": 32}),
    "simclr, batch 256": Run("simclr", 8, CONTRAST | {"batch": 256}),
    "moco-v3": Run("moco-v3", 8, CONTRAST),
    "moco-v3, no predictor": Run("moco-v3", 8, CONTRAST | {"predictor": False}),
    "mae": Run("mae", 12, MAE),
    "mae, ratio 0.25": Run("mae", 12, MAE | {"mask_ratio": 0.25}),
    "mae, mask tokens in the encoder": Run("mae", 12, MAE | {"mask_in_encoder": True}),
    "mae, plain pixels": Run("mae", 12, MAE | {"norm_pix": False}),
    "dino": Run("dino", 8, DINO),
    "dino, no centre": Run("dino", 8, DINO | {"centre": False}),
    "dino, not sharpened": Run("dino", 8, DINO | {"teacher_temperature_start": 1.0, "teacher_temperature": 1.0}),
    "dino, small crops": Run("dino", 8, DINO | {"local_crops": 4}),
    "dino, teacher is student": Run("dino", 8, DINO | {"momentum": 0.0, "momentum_rises": False}),
}


@dataclass(frozen=True)
class Claim:
    """What a paper says, the two figures that it is about, and by how much the first has to be above the second."""

    says: str
    first: tuple[str, str]
    second: tuple[str, str]
    by: float = 0.0


CLAIMS = (
    Claim(
        "SimCLR: a projection head with a hidden layer helps what lies before it",
        ("simclr", "linear"), ("simclr, no head", "linear"), 2,
    ),
    Claim("SimCLR: it helps more than a linear one", ("simclr", "linear"), ("simclr, linear head", "linear")),
    Claim("SimCLR: colour jitter is needed", ("simclr", "linear"), ("simclr, no colour", "linear")),
    Claim(
        "SimCLR: a larger batch is not worse at equal epochs",
        ("simclr, batch 256", "linear"), ("simclr, batch 32", "linear"),
    ),
    Claim("SimCLR: features before the head beat those behind it", ("simclr", "linear"), ("simclr", "linear projector")),
    Claim("MoCo v3: the predictor does no harm", ("moco-v3", "linear"), ("moco-v3, no predictor", "linear")),
    Claim("MAE: hiding 75 % is as good as 25 % at equal steps", ("mae", "linear"), ("mae, ratio 0.25", "linear"), -1),
    Claim("MAE: mask tokens in the encoder hurt the probe", ("mae", "linear"), ("mae, mask tokens in the encoder", "linear")),
    Claim("MAE: k-NN 5 points above the untrained encoder", ("mae", "knn"), ("mae", "knn untrained"), 5),
    Claim("MAE: normalised targets are as good or better", ("mae", "linear"), ("mae, plain pixels", "linear")),
    Claim("DINO: centring is needed", ("dino", "knn"), ("dino, no centre", "knn"), 2),
    Claim("DINO: sharpening is needed", ("dino", "knn"), ("dino, not sharpened", "knn"), 2),
    Claim("DINO: small crops help k-NN", ("dino, small crops", "knn"), ("dino", "knn")),
    Claim("DINO: the teacher beats the student", ("dino", "knn"), ("dino", "knn student")),
    Claim("DINO: a teacher that is the student fails", ("dino", "knn"), ("dino, teacher is student", "knn"), 2),
)  # fmt: skip


def measure(name: str, data: str, seed: int) -> dict[str, Any]:
    """One run and its probes on the test split, as shares."""
    run = RUNS[name]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        try:
            done = tacit.pretrain(run.host, data, out=out, epochs=run.epochs, options=SHARED | run.options | {"seed": seed})
        except tacit.Stopped as stop:
            return {"run": name, "seed": seed, "stopped": str(stop)}
        records = done.evaluate(data, protocols=["knn", "linear"], seed=seed)
        found = {f"{r.protocol} {r.encoder}".removesuffix(" run"): r.value for r in records if r.metric == "top1"}
        opened = OpenRun(out)
        for part, encode in inner(opened, done.config).items():
            task = Task.of("test", open_data(data), opened.spec, seed=seed)
            records = run_protocols(["knn", "linear"], {"run": Subject(encode)}, task, seed)
            found |= {f"{r.protocol} {part}": r.value for r in records if r.metric == "top1"}
        return {"run": name, "seed": seed, "verdict": done.verdict["verdict"], "steps": done.config["train"]["steps"], **found}


def inner(run: OpenRun, config: dict[str, Any]) -> dict[str, Callable[[Batch], torch.Tensor]]:
    """What the checkpoint holds besides the encoder that is kept: the projector's output, and the student of a teacher."""
    kind = method_class(config["run"]["method"])
    options: Options = validated(kind.Options, config["method"], "method")
    training: Training = validated(Training, config["train"], "train")
    made: Method = build_method(kind, options, training, Spec.from_dict(config["spec"]))
    made.load_state_dict(checkpoint.load(run.folder.last)["method"])
    made.eval()

    def encoded(encoder: Any, head: Any = None) -> Callable[[Batch], torch.Tensor]:
        @torch.no_grad()
        def encode(batch: Batch) -> torch.Tensor:
            features = encoder(run.seen(batch)).pooled
            return (features if head is None else head(features)).float()

        return encode

    parts = {} if made.projector is None else {"projector": encoded(made.encoder, made.projector)}
    return parts | ({} if made.encoder is made.student else {"student": encoded(made.student)})


def table(found: list[dict[str, Any]]) -> str:
    """Markdown: every claim, both figures in per cent (mean and deviation over seeds), and whether it showed."""
    lines = ["| claim | first | second | wanted | shown |", "|---|---|---|---|---|"]
    for claim in CLAIMS:
        sides = [[100 * row[figure] for row in found if row["run"] == name and figure in row] for name, figure in
                 (claim.first, claim.second)]  # fmt: skip
        if not all(sides):
            lines.append(f"| {claim.says} | | | | stopped or not run |")
            continue
        cells = [
            f"{name}, {figure}: {statistics.fmean(side):.1f}" + (f" ± {statistics.stdev(side):.1f}" if len(side) > 1 else "")
            for (name, figure), side in zip((claim.first, claim.second), sides, strict=True)
        ]
        gain = statistics.fmean(sides[0]) - statistics.fmean(sides[1])
        lines.append(
            f"| {claim.says} | {cells[0]} | {cells[1]} | {claim.by:+g} | {'yes' if gain >= claim.by else 'no'} ({gain:+.1f}) |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, and print the table."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("data", nargs="?")
    words.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    words.add_argument("--runs", nargs="+", default=list(RUNS))
    words.add_argument("--table", action="store_true")
    asked = words.parse_args()
    content = json.loads(FILE.read_text()) if FILE.exists() else {"machine": describe(), "runs": []}
    if not asked.table:
        content["data"] = Path(asked.data).name
        for seed in asked.seeds:
            for name in asked.runs:
                if any((row["run"], row["seed"]) == (name, seed) for row in content["runs"]):
                    continue
                content["runs"].append(measure(name, asked.data, seed))
                files.write_json(FILE, content)
                print(json.dumps(content["runs"][-1]), flush=True)
    print(table(content["runs"]))


if __name__ == "__main__":
    main()
