"""One optimiser step: views, loss, gradients, update. The same lines for every method."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import Optimizer

from tacit.core import distributed
from tacit.core.draws import Draws
from tacit.core.errors import Stopped, TacitError
from tacit.core.repeatable import repeatable
from tacit.data.spec import Batch, Spec
from tacit.methods.method import Contrastive, Method, Progress, Rows, Terms
from tacit.nn.convolution import steady
from tacit.nn.layout import channels_last
from tacit.nn.norms import BatchNorm, synchronise
from tacit.train import optimise, sharded
from tacit.train.config import Training
from tacit.train.record import Clock
from tacit.train.schedule import cosine, rate
from tacit.train.sharded import laid_out


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
        refuse_uneven(training, fabric.world_size)
        steady(method)
        if fabric.world_size > 1:
            synchronise(method)
        self.sharded = training.strategy == "fsdp" and fabric.world_size > 1
        # What is cut into parts has to lie in the usual order, and cannot be looked at without a copy that is whole.
        self._copy = copy.deepcopy(method) if self.sharded and fabric.global_rank == 0 else None
        self.model: nn.Module = fabric.setup_module(method if self.sharded else channels_last(method))
        self.optimiser = self._optimiser()

    @property
    def device(self) -> torch.device:
        return self.fabric.device

    def __call__(self, batch: Batch, progress: Progress) -> Terms:
        """Update the weights from this rank's part of a batch; raises `Stopped` before that if the loss is not finite."""
        self._set_rates(progress)
        self.optimiser.zero_grad(set_to_none=True)
        self.method.before_step(progress)
        rows = len(batch) // self.training.accumulate
        parts = [batch.rows(start, start + rows) for start in range(0, len(batch), rows)]
        together = len(parts) > 1 and isinstance(self.method, Contrastive)
        with repeatable(self.device):
            terms = self._among_all(parts, batch, progress) if together else self._each(parts, progress)
        with self.clock.phase("optimiser"):
            if self.training.clip:
                clip = optimise.clip_each if self.training.clip_per_tensor else optimise.clip
                clip(self.method.parameters(), self.training.clip)
            self.method.after_backward(progress)
            self.optimiser.step()
            self.method.after_step(progress)
        self.clock.samples += len(batch) * self.fabric.world_size
        return terms

    def _each(self, parts: list[Batch], progress: Progress) -> Terms:
        """Gradients of the mean of what each pass says for itself."""
        found: list[Terms] = []
        for place, part in enumerate(parts):
            with self._meeting(place == len(parts) - 1):
                terms = self.forward(part, progress)
                self._refuse_non_finite(terms, part, progress)
                self._backward(terms.total / len(parts))
            found.append(terms)
        return _mean(found)

    def _among_all(self, parts: list[Batch], batch: Batch, progress: Progress) -> Terms:
        """Gradients of a contrastive loss over the samples of all passes, in the memory of one.

        Gao, Zhang, Han, Callan, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", 2021: the rows of
        all passes come first, without what they were made of; then each pass is made again, with its own rows among those.
        """
        method: Contrastive = self.method  # pyright: ignore[reportAssignmentType]
        with torch.no_grad(), _buffers_kept(method):  # batch statistics run on in the second round alone
            rows = [self.forward(part, progress, dict) for part in parts]

        def compared(place: int, own: Rows) -> Terms:
            known = [*rows[:place], own, *rows[place + 1 :]]
            terms = method.compare({name: torch.cat([each[name] for each in known]) for name in own}, progress)
            if place < len(parts) - 1:  # what the loss has weights of its own for, such as a temperature, learns once a step
                trained = [row for row in own.values() if row.requires_grad]
                pulls = torch.autograd.grad(terms.total, trained)
                terms.total = torch.stack([(row * pull).sum() for row, pull in zip(trained, pulls, strict=True)]).sum()
            return terms

        found: list[Terms] = []
        for place, part in enumerate(parts):
            with self._meeting(place == len(parts) - 1):
                found.append(self.forward(part, progress, partial(compared, place)))
                self._refuse_non_finite(found[-1], batch, progress)
                self._backward(found[-1].total)
        return found[-1]

    def _meeting(self, last: bool) -> AbstractContextManager[None]:
        """A pass after which ranks add up their gradients if it is the `last` one of a step."""
        return self.fabric.no_backward_sync(self.model, enabled=not last)  # pyright: ignore

    def _backward(self, total: Tensor) -> None:
        with self.clock.phase("backward"):
            self.fabric.backward(total)

    def forward(self, batch: Batch, progress: Progress, *then: Callable[[Rows], Any]) -> Any:
        """Views and loss of one batch; or what `then` makes of the rows that a contrastive loss compares."""
        with self.clock.phase("views"), torch.no_grad():
            seen, draws = self.see(batch, int(progress.epoch))
        low = self.training.precision == "bfloat16"
        with self.clock.phase("forward"), torch.autocast(self.device.type, torch.bfloat16, enabled=low):
            return self.model(seen, draws, progress, *then)

    def see(self, batch: Batch, epoch: int) -> tuple[dict[str, Tensor], Draws]:
        """The views of a batch by name, and the draws they were made with."""
        batch = batch.to(self.device, non_blocking=True)
        draws = Draws(self.training.seed, epoch, batch.ids)
        return {name: view(batch.of(name), draws.within(name), self.spec) for name, view in self.views.items()}, draws

    def whole(self) -> Method:
        """The method with all its weights on one device, to look at. Every rank has to ask; only the first one may look."""
        if not self.sharded:
            return self.method
        state = sharded.whole(self.method.state_dict(), keep=self._copy is not None)
        if self._copy is None:
            return self.method
        self._copy.load_state_dict(state)
        return copy.deepcopy(self._copy).to(self.device)

    def state_dict(self) -> dict[str, Any]:
        """Weights and optimiser, whole on the first rank: the same on any number of ranks. Every rank has to ask."""
        state = {"method": self.method.state_dict(), "optimiser": self.optimiser.state_dict()}
        return sharded.whole(state, keep=self.fabric.global_rank == 0) if self.sharded else state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave, on however many ranks and with whichever strategy that was."""
        own, weights = self.method.state_dict(), state["method"]
        if self.sharded:
            weights = {name: laid_out(value, own[name]) for name, value in weights.items()}
        self.method.load_state_dict(weights)
        parameters = [parameter for group in self.optimiser.param_groups for parameter in group["params"]]
        moments = {
            number: {
                name: laid_out(value, parameters[number]) if value.ndim else value.clone()  # how many steps it took is a scalar
                for name, value in values.items()
                if value is not None
            }
            for number, values in state["optimiser"]["state"].items()
        }
        self.optimiser.load_state_dict({**state["optimiser"], "state": moments})

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

    def _refuse_non_finite(self, terms: Terms, part: Batch, progress: Progress) -> None:
        """Raises `Stopped` on every rank if the loss of any rank's pass is not finite, with the samples of that pass."""
        mine = not torch.isfinite(terms.total)
        if not distributed.largest(int(mine)):
            return
        said = None
        if mine:
            broken = [name for name, value in terms.parts.items() if not bool(torch.isfinite(value).all())] or ["total"]
            said = f"term {', '.join(broken)}; {self._suspects(part, int(progress.epoch))}"
        said = next(found for found in distributed.everybodys(said) if found)
        raise Stopped(
            f"step {progress.step}: the loss is not finite ({said}); "
            "no weight was changed; lower the learning rate (--set lr=...) or use --set precision=float32"
        )

    def _suspects(self, part: Batch, epoch: int) -> str:
        """The files of a pass; where views of some are themselves not finite, those alone."""
        views, _ = self.see(part, epoch)  # the same again: everything random about them is a function of the sample
        broken = torch.stack([~view.flatten(1).isfinite().all(dim=1) for view in views.values()]).any(dim=0).cpu()
        ids = part.ids.cpu()
        rows = (ids[broken] if broken.any() else ids).tolist()
        files = ", ".join(self.paths(row) for row in rows[:4]) + " ..." * (len(rows) > 4)
        return f"views that are not finite, of {files}" if broken.any() else f"batch of {len(part)} with {files}"

    def sound(self) -> bool:
        """Whether all weights of all ranks are finite: after a gradient that was not, they are worth no checkpoint."""
        weights = [distributed.local(value) for value in self.method.parameters()]
        broken = not torch.stack(list(torch._foreach_norm(weights))).isfinite().all()  # pyright: ignore
        return not distributed.largest(int(broken))


def refuse_uneven(training: Training, ranks: int = 1) -> None:
    """A `TacitError` where a batch is not made of equal parts for every rank and pass."""
    parts = ranks * training.accumulate
    if training.batch % parts:
        among = [f"{ranks} processes"] * (ranks > 1) + [f"{training.accumulate} passes"] * (training.accumulate > 1)
        raise TacitError(
            f"a batch of {training.batch} is not made of equal parts for {' with '.join(among)}; "
            f"give a multiple of {parts}, such as --batch {max(1, round(training.batch / parts)) * parts}"
        )


def passes(method: Method, training: Training) -> str:
    """What steps that are made of several passes come to, in words; empty where they are the steps of the whole batch."""
    apart = method.negatives and not isinstance(method, Contrastive)
    among = ["negatives"] * apart + ["batch statistics"] * any(isinstance(m, BatchNorm) for m in method.modules())
    if training.accumulate == 1 or not among:
        return ""
    return (
        f"a step is made of {training.accumulate} passes: {' and '.join(among)} are those of the "
        f"{training.batch // training.accumulate} samples of a pass, not of the {training.batch} of a step"
    )


def _mean(parts: list[Terms]) -> Terms:
    """Of the parts that one step was made of."""
    if len(parts) == 1:
        return parts[0]

    def mean(name: str) -> dict[str, Tensor]:
        return {key: torch.stack([getattr(part, name)[key] for part in parts]).mean() for key in getattr(parts[0], name)}

    return Terms(torch.stack([part.total.detach() for part in parts]).mean(), mean("parts"), parts[0].chance, mean("watch"))


@contextmanager
def _buffers_kept(method: Method) -> Iterator[None]:
    """Running moments and all other buffers are afterwards what they were before."""
    before = [(buffer, buffer.clone()) for buffer in method.buffers()]
    yield
    for buffer, value in before:
        buffer.copy_(value)
