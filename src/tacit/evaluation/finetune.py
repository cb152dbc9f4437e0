"""Fine-tuning: the encoder and a new linear layer trained together, deeper layers faster (BEiT and MAE's layer decay)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tacit.core.draws import Draws
from tacit.core.repeatable import repeatable
from tacit.data.spec import Batch
from tacit.evaluation.features import extract
from tacit.evaluation.outcome import Outcome, accuracies
from tacit.evaluation.schedule import warmed_cosine
from tacit.evaluation.subject import Tuning
from tacit.evaluation.task import Task
from tacit.nn.encoder import Encoder
from tacit.nn.layout import channels_last

EPOCHS, WARMUP, BATCH = 20, 0.1, 64
RATE, LAYER_DECAY, WEIGHT_DECAY, SMOOTHING = 1e-3, 0.75, 0.05, 0.1
"""MAE's fine-tuning in short: its rate for a batch of 256, its layer decay, weight decay and label smoothing; no mixing."""


def finetune(tuning: Tuning, task: Task, seed: int = 0, epochs: int = EPOCHS) -> Outcome:
    """Accuracy on test after the last epoch. Nothing is chosen, so nothing is held out.

    AdamW; the rate rises over the first tenth of the steps and falls to 0 on a cosine.
    """
    encoder = channels_last(tuning.fresh().train())
    device = next(encoder.parameters()).device
    head = _zero_linear(encoder.width, len(task.split.classes), device)
    loader = task.training(BATCH, seed)
    optimiser = torch.optim.AdamW(layer_groups(encoder, head), lr=0.0, betas=(0.9, 0.999))
    places = dict(zip(task.split.ids.tolist(), torch.cat([task.split.train_y, task.split.test_y]).tolist(), strict=True))

    def truth(ids: Tensor) -> Tensor:
        return torch.tensor([places[row] for row in ids.tolist()], device=device)

    steps = epochs * loader.steps_per_epoch
    for step, batch in enumerate(loader.ahead(0, steps)):
        for group in optimiser.param_groups:
            group["lr"] = group["scale"] * RATE * len(batch) / 256 * warmed_cosine(step / steps, WARMUP)
        batch = batch.to(device)
        draws = Draws(seed, step // loader.steps_per_epoch, batch.ids).within("finetune")
        x = tuning.view(batch, draws.within("view"), task.spec)
        loss = F.cross_entropy(head(encoder(x, draws=draws).pooled), truth(batch.ids), label_smoothing=SMOOTHING)
        optimiser.zero_grad()
        with repeatable(device):
            loss.backward()
        optimiser.step()

    encoder.eval()

    def encode(batch: Batch) -> Tensor:
        batch = batch.to(device)
        return encoder(tuning.still(batch, Draws(seed, 0, batch.ids), task.spec)).pooled

    found = extract(encode, task.shown(task.split.test))
    with torch.no_grad():
        scores = head(found.values.to(device))
    values = accuracies(scores, truth(found.ids))
    return Outcome(values, {"epochs": epochs, "rate": RATE, "layer_decay": LAYER_DECAY})


def layer_groups(encoder: Encoder, head: nn.Module) -> list[dict]:
    """Parameter groups for an optimiser, each with its `scale` of the rate: 0.75^(depth + 1 - level); the head's is 1.

    Weight decay acts on what has two or more dimensions.
    """
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in encoder.named_parameters():
        if parameter.requires_grad:
            scale = LAYER_DECAY ** (encoder.depth + 1 - encoder.level(name))
            groups.setdefault((scale, parameter.ndim > 1), []).append(parameter)
    for parameter in head.parameters():
        groups.setdefault((1.0, parameter.ndim > 1), []).append(parameter)
    return [
        {"params": parameters, "scale": scale, "weight_decay": WEIGHT_DECAY * decays}
        for (scale, decays), parameters in groups.items()
    ]


def _zero_linear(inputs: int, outputs: int, device: torch.device) -> nn.Linear:
    """A linear layer that starts from 0, so that there is nothing random about it."""
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs, device=device)
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer  # pyright: ignore[reportReturnType]
