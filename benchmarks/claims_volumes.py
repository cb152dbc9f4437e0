"""The claims of Alice that can be seen on 26 small volumes of one organ, judged by the label maps of 12 others."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from claim import Claim, Figures, Run
from torch import Tensor, nn

import tacit
from tacit.core.draws import Draws
from tacit.data.open import open_data
from tacit.data.spec import Batch, Spec
from tacit.evaluation.dense_grid import GridReader, maps
from tacit.evaluation.dense_task import DenseTask, split_masked
from tacit.evaluation.task import Task
from tacit.nn.encoder import Encoder
from tacit.train.folder import RunFolder, read_table
from tacit.use.run import OpenRun
from tacit.views.volume import normalised
from tacit.views.volume_crops import body_points, crop_around
from tacit.views.volume_pairs import body

TITLE = "Alice"
STEPS = 200
"""Where nothing else is said."""

SIZE = 16
"""Of crops, in voxels: one shows a part of a volume of 35 and not nearly all of it. Features are taken of twice as much."""

SHARED: dict[str, Any] = {
    "encoder": "swin3d-micro", "size": SIZE, "feature_size": 2 * SIZE, "batch": 12, "precision": "float32", "held_back": 4
}  # fmt: skip
LAST = 20
"""Steps whose losses are averaged."""

FEW = 3
"""Volumes that a network is fine-tuned on: about a tenth of those it was pretrained on."""

NEEDED = 0.7
"""The share of the steps in which an anatomy is trained first, where pairs are matched; as many as everywhere are left."""

TUNING, CROPS, RATE, HEAD = 400, 8, 1e-3, 10
"""Steps of fine-tuning, crops to a step, the encoder's greatest rate, and how many times that the new head's is."""


def segmented(run: tacit.Run, data: str, seed: int, baselines: str = "none") -> dict[str, float]:
    """Dice of a linear head on frozen maps, from all and from ten volumes; and the mean of each term over the last steps."""
    found = {
        f"{record.metric} {record.encoder}".removesuffix(" run"): record.value
        for record in run.evaluate(data, protocols=["segmentation"], baselines=baselines, seed=seed)
        if record.metric.startswith("dice") and record.value is not None
    }
    terms = read_table(RunFolder(run.path).metrics)
    known = {name: [value for value in terms[name][-LAST:] if value is not None] for name in ("cls", "patch", "rec")}
    return found | {name: statistics.fmean(values) for name, values in known.items() if values}


def beside(run: tacit.Run, data: str, seed: int) -> dict[str, float]:
    """`segmented`, beside the untrained encoder and raw input."""
    return segmented(run, data, seed, "both")


def with_baselines(run: tacit.Run, data: str, seed: int) -> dict[str, float]:
    """The same, and fine-tuned from both starts."""
    return beside(run, data, seed) | tuned_from(run, data, seed, ("run", "untrained"))


def with_tuning(run: tacit.Run, data: str, seed: int) -> dict[str, float]:
    """`segmented`, and fine-tuned."""
    return segmented(run, data, seed) | tuned_from(run, data, seed, ("run",))


def tuned_from(run: tacit.Run, data: str, seed: int, starts: Sequence[str]) -> dict[str, float]:
    """Dice on the test volumes after encoder and head learned together from `FEW` volumes: `tuned`, `tuned untrained`."""
    opened, collection = OpenRun(run.path), open_data(data)
    split = split_masked(collection, seed)
    dense = DenseTask.of(Task("test", collection, opened.spec, split))
    order = Draws(seed, 0, split.train).words("few", 1)[:, 0].argsort(stable=True)
    ((few, labels),) = dense.batches(split.train[order[:FEW]])
    encoders = {"run": opened.encoder, "untrained": opened.untrained}
    found = {}
    for start in starts:
        reader, weight, bias = tuned(encoders[start], few, labels, len(dense.classes), opened.spec, (SIZE, SIZE, SIZE), seed)
        each = [
            dice(scores.argmax(dim=1), label)
            for batch, own in dense.batches(split.test)
            for scores, label in zip(reader.scores(batch, weight, bias), own, strict=True)
        ]
        found[f"tuned {start}".removesuffix(" run")] = statistics.fmean(each)
    return found


def tuned(
    start: Encoder, few: Batch, labels: Sequence[Tensor], classes: int, spec: Spec, extent: Sequence[int], seed: int
) -> tuple[GridReader, Tensor, Tensor]:
    """A copy of an encoder, and a linear head on all its maps (as the protocol has it), trained on crops of labelled volumes.

    Args:
        start: the encoder; not changed.
        few: volumes.
        labels: the classes of their voxels, int64 `[P]` each; -1 for none.
        extent: of crops.
    """
    encoder, volumes, sizes = copy.deepcopy(start).train(), body(few, spec), few.sizes.long()
    marks = Batch.padded(few.ids, [own.view(1, *size).numpy() + 1 for own, size in zip(labels, sizes.tolist(), strict=True)])
    share = torch.stack([(marks.data == label + 1).sum() for label in range(classes)]).clamp(min=1).float() ** -0.5
    with torch.no_grad():
        widths = [each.shape[1] for each in maps(encoder, volumes.new_zeros(1, spec.channels, *extent))]
    weight, bias = nn.Parameter(torch.zeros(sum(widths), classes)), nn.Parameter(torch.zeros(classes))
    optimiser = torch.optim.AdamW([{"params": encoder.parameters()}, {"params": [weight, bias]}])
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, [RATE, HEAD * RATE], TUNING)
    rows = torch.arange(CROPS) % len(few)
    for step in range(TUNING):
        chances = Draws(seed, step, torch.arange(CROPS)).within("tuning").uniform("point", 1)
        points = body_points(volumes[rows], chances, sizes[rows])[:, 0]
        x, y = (crop_around(each[rows], points, extent, sizes[rows]) for each in (volumes, marks.data))
        found = zip(maps(encoder, normalised(x, "data", spec)), weight.split(widths), strict=True)
        low = [torch.einsum("bdxyz,dk->bkxyz", each, part) for each, part in found]
        full = [F.interpolate(each, tuple(extent), mode="trilinear", align_corners=False) for each in low]
        scores = torch.stack(full).sum(dim=0) + bias[:, None, None, None]
        loss = F.cross_entropy(scores, y[:, 0] - 1, share / share.mean(), ignore_index=-1)  # 0: outside of the volume
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return GridReader(encoder.eval(), spec, extent), weight.detach(), bias.detach()


def dice(answers: Tensor, labels: Tensor) -> float:
    """The mean over the classes that a volume has, without the background."""
    there = [label for label in labels.unique().tolist() if label > 0]
    pairs = [(answers == label, labels == label) for label in there]
    return statistics.fmean(2 * float((said & true).sum()) / float(said.sum() + true.sum()) for said, true in pairs)


def run(figures: Figures = segmented, **options: Any) -> Run:
    return Run("alice", "hippocampus_mr/manifest.csv", {"steps": STEPS}, SHARED | options, figures)


RUNS = {
    "alice": run(with_baselines),
    "alice, any other place": run(partner="random"),
    "alice, no CASA": run(casa=False),
    "alice, no reconstruction": run(with_tuning, lambda_rec=0.0),
    "alice, reconstruction alone": run(with_tuning, lambda_cls=0.0, lambda_patch=0.0),
    "alice, matched": replace(run(partner="matched", needs_share=NEEDED), budget={"steps": round(STEPS / (1 - NEEDED))}),
}

CLAIMS = (
    Claim("Alice: above the untrained encoder", ("alice", "dice"), ("alice", "dice untrained")),
    Claim("Alice: above raw input", ("alice", "dice"), ("alice", "dice input")),
    Claim(
        "Alice: pairs at the same relative position beat any other place",
        ("alice", "dice"), ("alice, any other place", "dice"), 1,
    ),
    Claim("Alice: matched pairs beat any other place", ("alice, matched", "dice"), ("alice, any other place", "dice"), 1),
    Claim("Alice: CASA does no harm", ("alice", "dice"), ("alice, no CASA", "dice"), -0.5),
    Claim("Alice: with CASA the loss of places is lower", ("alice, no CASA", "patch"), ("alice", "patch"), unit=1),
    Claim(
        "Alice: reconstruction is needed, with few labels",
        ("alice", "tuned"), ("alice, no reconstruction", "tuned"),
    ),
    Claim("Alice: and is not enough", ("alice", "tuned"), ("alice, reconstruction alone", "tuned")),
    Claim("Alice: a better start than none, with few labels", ("alice", "tuned"), ("alice", "tuned untrained")),
)  # fmt: skip
