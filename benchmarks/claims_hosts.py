"""The claims of SimCLR, MoCo v3, MAE and DINO that can be seen on a few thousand small photographs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from claim import Claim, Run, method_of, probes, top1

import tacit
from tacit.data.open import open_data
from tacit.data.spec import Batch
from tacit.evaluation.protocol import run_protocols
from tacit.evaluation.subject import Subject
from tacit.evaluation.task import Task
from tacit.use.run import OpenRun

TITLE = "The hosts"
SHARED: dict[str, Any] = {"precision": "bfloat16", "size": 32, "held_back": 64}
CONTRAST = {"encoder": "resnet-mini", "batch": 128}
DINO = {"encoder": "resnet-mini", "batch": 64, "local_crops": 0}
MAE = {"encoder": "vit-mini/4", "batch": 128}


def inner(run: OpenRun) -> dict[str, Callable[[Batch], torch.Tensor]]:
    """What the checkpoint holds besides the encoder that is kept: the projector's output, and the student of a teacher."""
    made = method_of(run)

    def encoded(encoder: Any, head: Any = None) -> Callable[[Batch], torch.Tensor]:
        @torch.no_grad()
        def encode(batch: Batch) -> torch.Tensor:
            features = encoder(run.seen(batch)).pooled
            return (features if head is None else head(features)).float()

        return encode

    parts = {} if made.projector is None else {"projector": encoded(made.encoder, made.projector)}
    return parts | ({} if made.encoder is made.student else {"student": encoded(made.student)})


def with_inner(run: tacit.Run, data: str, seed: int) -> dict[str, float]:
    """The probes of the encoder that is kept, and of the other parts of the run."""
    found, opened = probes(run, data, seed), OpenRun(run.path)
    for part, encode in inner(opened).items():
        task = Task.of("test", open_data(data), opened.spec, seed=seed)
        records = run_protocols(["knn", "linear"], {"run": Subject(encode)}, task, seed)
        found |= {f"{name} {part}": value for name, value in top1(records).items()}
    return found


def run(host: str, epochs: float, options: dict[str, Any]) -> Run:
    return Run(host, "cifar10_subset", {"epochs": epochs}, SHARED | options, with_inner)


RUNS = {
    "simclr": run("simclr", 8, CONTRAST),
    "simclr, linear head": run("simclr", 8, CONTRAST | {"head_layers": 1}),
    "simclr, no head": run("simclr", 8, CONTRAST | {"head_layers": 0}),
    "simclr, no colour": run("simclr", 8, CONTRAST | {"jitter": 0.0, "grey": 0.0}),
    "simclr, batch 32": run("simclr", 8, CONTRAST | {"batch": 32}),
    "simclr, batch 256": run("simclr", 8, CONTRAST | {"batch": 256}),
    "moco-v3": run("moco-v3", 8, CONTRAST),
    "moco-v3, no predictor": run("moco-v3", 8, CONTRAST | {"predictor": False}),
    "mae": run("mae", 12, MAE),
    "mae, ratio 0.25": run("mae", 12, MAE | {"mask_ratio": 0.25}),
    "mae, mask tokens in the encoder": run("mae", 12, MAE | {"mask_in_encoder": True}),
    "mae, plain pixels": run("mae", 12, MAE | {"norm_pix": False}),
    "dino": run("dino", 8, DINO),
    "dino, no centre": run("dino", 8, DINO | {"centre": False}),
    "dino, not sharpened": run("dino", 8, DINO | {"teacher_temperature_start": 1.0, "teacher_temperature": 1.0}),
    "dino, small crops": run("dino", 8, DINO | {"local_crops": 4}),
    "dino, teacher is student": run("dino", 8, DINO | {"momentum": 0.0, "momentum_rises": False}),
}

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
