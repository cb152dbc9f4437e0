"""An encoder trained on labels for so many minutes: what pretraining is measured beside."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import count

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tacit.core.draws import Draws
from tacit.evaluation.finetune import SMOOTHING, WARMUP, layer_groups
from tacit.evaluation.outcome import accuracies
from tacit.evaluation.schedule import warmed_cosine
from tacit.evaluation.subject import Tuning
from tacit.evaluation.task import Task
from tacit.nn.convolution import steady
from tacit.nn.layout import channels_last

RATE, BATCH = 1e-3, 64


def supervised(
    tuning: Tuning, task: Task, minutes: float, precision: str, seed: int, layer_decay: bool = False
) -> dict[str, float]:
    """What an encoder and a linear layer reach on test that are trained together until the time has passed.

    AdamW with label smoothing, through fine-tuning's crops; the rate rises and falls with the clock. Figures are those after
    the last step, so nothing is chosen on test.

    Args:
        tuning: an encoder to start from, and its views.
        task: whose training split is learned from.
        minutes: the clock starts with the first batch.
        precision: arithmetic of forward and backward, that of the run it is measured beside.
        seed: of order and crops.
        layer_decay: lower layers change less, as suits an encoder that has learned before.

    Returns:
        `top1` and `balanced`, as shares; `samples`, how many were seen.
    """
    encoder = channels_last(tuning.fresh().train())
    steady(encoder)
    device = next(encoder.parameters()).device
    head = nn.Linear(encoder.width, len(task.split.classes), device=device)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    optimiser = torch.optim.AdamW(layer_groups(encoder, head), lr=0.0)
    place = torch.full((len(task.collection),), -1)
    place[task.split.ids] = torch.cat([task.split.train_y, task.split.test_y])

    def scores(x: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            return head(encoder(channels_last(x)).pooled).float()

    loader, start, samples = task.training(BATCH, seed), time.monotonic(), 0
    for step, batch in zip(count(), loader.ahead(0, 1 << 40), strict=False):
        if (done := (time.monotonic() - start) / (60 * minutes)) >= 1:
            break
        for group in optimiser.param_groups:
            group["lr"] = (group["scale"] if layer_decay else 1) * RATE * warmed_cosine(done, WARMUP)
        wanted, batch = place[batch.ids].to(device), batch.to(device)
        draws = Draws(seed, step // loader.steps_per_epoch, batch.ids).within("supervised")
        x = tuning.view(batch, draws, task.spec)
        loss = F.cross_entropy(scores(x), wanted, label_smoothing=SMOOTHING)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        samples += len(batch)

    encoder.eval()
    found, truth = [], []
    with torch.no_grad():
        for batch in task.batches(task.split.test):
            truth.append(place[batch.ids])
            batch = batch.to(device)
            found.append(scores(tuning.still(batch, Draws(seed, 0, batch.ids), task.spec)).cpu())
    values = accuracies(torch.cat(found), torch.cat(truth))
    return {"top1": values["top1"], "balanced": values["balanced"], "samples": samples}


def with_labels(task: Task, each: int, seed: int) -> Task:
    """The same task with so many labelled training samples of each class (all, where a class has fewer)."""
    split = task.split
    order = Draws(seed, 0, split.train).words("labels", 1)[:, 0].argsort(stable=True)
    rank = F.one_hot(split.train_y[order]).cumsum(dim=0).gather(1, split.train_y[order][:, None])[:, 0]
    kept = order[rank <= each].sort().values
    return replace(task, split=replace(split, train=split.train[kept], train_y=split.train_y[kept], train_groups=None))
