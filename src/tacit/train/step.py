"""One optimiser step: views, loss, gradients, update. The same lines for every method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import Optimizer

from tacit.core import distributed
from tacit.core.draws import Draws
from tacit.core.errors import Stopped
from tacit.data.spec import Batch, Spec
from tacit.methods.method import Method, Progress, Terms
from tacit.train import optimise
from tacit.train.config import Training
from tacit.train.record import Clock
from tacit.train.schedule import cosine, rate


class Step:
    """What turns a batch into an update of a method's weights.

    Args:
        method: the method; moved to the fabric's device.
        paths: the path of a row of the index, for messages.
    """

    def __init__(
        self, method: Method, training: Training, spec: Spec, fabric: Fabric, paths: Callable[[int], str] = str
    ) -> None:
        self.method, self.training, self.spec, self.fabric, self.paths = method, training, spec, fabric, paths
        self.views = method.views()
        self.clock = Clock()
        self.model: nn.Module
        self.model, self.optimiser = fabric.setup(channels_last(method), self._optimiser())

    @property
    def device(self) -> torch.device:
        return self.fabric.device

    def __call__(self, batch: Batch, progress: Progress) -> Terms:
        """Update the weights from this rank's part of a batch; raises `Stopped` before that if the loss is not finite."""
        self._set_rates(progress)
        self.optimiser.zero_grad(set_to_none=True)
        rows = len(batch) // self.training.accumulate
        found: list[Terms] = []
        for start in range(0, rows * self.training.accumulate, rows):
            terms = self.forward(batch.rows(start, start + rows), progress)
            self._refuse_non_finite(terms, batch, progress.step)
            with self.clock.phase("backward"):
                self.fabric.backward(terms.total / self.training.accumulate)
            found.append(terms)
        with self.clock.phase("optimiser"):
            if self.training.clip:
                clip = optimise.clip_each if self.training.clip_per_tensor else optimise.clip
                clip(self.method.parameters(), self.training.clip)
            self.method.after_backward(progress)
            self.optimiser.step()
            self.method.after_step(progress)
        self.clock.samples += len(batch) * self.fabric.world_size
        return _mean(found)

    def forward(self, batch: Batch, progress: Progress) -> Terms:
        """Views and loss of one batch."""
        with self.clock.phase("views"), torch.no_grad():
            seen, draws = self.see(batch, int(progress.epoch))
        low = self.training.precision == "bfloat16"
        with self.clock.phase("forward"), torch.autocast(self.device.type, torch.bfloat16, enabled=low):
            return self.model(seen, draws, progress)

    def see(self, batch: Batch, epoch: int) -> tuple[dict[str, Tensor], Draws]:
        """The views of a batch by name, and the draws they were made with."""
        batch = batch.to(self.device, non_blocking=True)
        draws = Draws(self.training.seed, epoch, batch.ids)
        seen = {name: view(batch, draws.within(name), self.spec) for name, view in self.views.items()}
        return {name: channels_last(x) for name, x in seen.items()}, draws

    def _optimiser(self) -> Optimizer:
        t, encoder = self.training, self.method.student
        trained = [(name, parameter) for name, parameter in self.method.named_parameters() if parameter.requires_grad]

        def level(name: str) -> int:
            inner = name.removeprefix("student.")
            return encoder.level(inner) if inner != name else encoder.depth + 1

        groups = optimise.groups(trained, self.method.decays, t.weight_decay, level, encoder.depth, t.layer_decay)
        own: dict[str, Any] = {"betas": (t.beta1, t.beta2)} if t.optimiser == "adamw" else {"momentum": t.momentum}
        return optimise.build(t.optimiser, groups, t.lr, **own)

    def _set_rates(self, progress: Progress) -> None:
        t, step, steps = self.training, progress.step, progress.steps
        decay = None if t.weight_decay_end is None else cosine(progress.fraction, t.weight_decay, t.weight_decay_end)
        optimise.set_rates(self.optimiser, rate(t.schedule, step, t.warmup, steps, t.lr, t.lr_end), decay)

    def _refuse_non_finite(self, terms: Terms, batch: Batch, step: int) -> None:
        if not distributed.largest(int(not torch.isfinite(terms.total))):
            return
        broken = [name for name, value in terms.parts.items() if not bool(torch.isfinite(value).all())] or ["total"]
        files = ", ".join(self.paths(int(row)) for row in batch.ids[:4])
        raise Stopped(
            f"step {step}: the loss is not finite (term {', '.join(broken)}; batch of {len(batch)} with {files} ...); "
            "no weight was changed; lower the learning rate (--set lr=...) or use --set precision=float32"
        )


def _mean(parts: list[Terms]) -> Terms:
    """Of the parts that one step was made of."""
    if len(parts) == 1:
        return parts[0]

    def mean(name: str) -> dict[str, Tensor]:
        return {key: torch.stack([getattr(part, name)[key] for part in parts]).mean() for key in getattr(parts[0], name)}

    return Terms(torch.stack([part.total.detach() for part in parts]).mean(), mean("parts"), parts[0].chance, mean("watch"))


Laid = TypeVar("Laid", Tensor, Method, nn.Sequential)


def channels_last(thing: Laid) -> Laid:
    """Images and convolutions with the channel varying fastest: what convolutions are quickest on, by far in bfloat16."""
    if isinstance(thing, Tensor) and thing.ndim != 4:
        return thing
    return thing.to(memory_format=torch.channels_last)  # pyright: ignore
