"""What a step of any method costs at the least: its own modules, forward and backward, and nothing around them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
from built import HALFWAY
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from tacit.core.repeatable import repeatable
from tacit.data.spec import Batch
from tacit.train.step import Step


@dataclass
class Call:
    """One call of a module: with what, whether for a gradient, and the gradients that came back to what it gave."""

    module: nn.Module
    args: tuple[Any, ...]
    named: dict[str, Any]
    trained: bool
    gradients: dict[int, Tensor] = field(default_factory=dict)

    def again(self) -> tuple[list[Tensor], list[Tensor]]:
        """What the module gives now to those inputs, where a gradient came back, and that gradient."""
        with torch.set_grad_enabled(self.trained):
            args, named = mapped((self.args, self.named), leaf)
            outputs = tensors(self.module(*args, **named))
        return [outputs[place] for place in self.gradients], list(self.gradients.values())


def bare(step: Step, batch: Batch) -> Callable[[], object]:
    """The modules of a step on this batch, forward and backward, and the optimiser's update.

    One step is watched: each outermost module that it calls, with what it gives to it. Afterwards the same modules are called
    with the same inputs, each for itself, and get the gradients that they got. What lies between them (views, masks, losses,
    teachers that follow, checks) is left out. An output that another one is made of (tokens, which are pooled) gets the
    gradients of both, which is one addition more.
    """
    calls = watched(step, batch)
    low = step.training.precision == "bfloat16"

    def call() -> None:
        step.optimiser.zero_grad(set_to_none=True)
        outputs, gradients = [], []
        with torch.autocast(step.device.type, torch.bfloat16, enabled=low):
            for each in calls:
                given, wanted = each.again()
                outputs += given
                gradients += wanted
        with repeatable(step.device):
            torch.autograd.backward(outputs, gradients)
        step.optimiser.step()

    return call


def watched(step: Step, batch: Batch) -> list[Call]:
    """The outermost calls of modules in one step, in their order."""
    calls: list[Call] = []
    whole, inside = (step.method, step.model), False

    def watching(module: nn.Module, *args: Any, **named: Any) -> Any:
        nonlocal inside
        if inside or module in whole:
            return plain(module, *args, **named)
        inside = True
        try:
            given = plain(module, *args, **named)
        finally:
            inside = False
        call = Call(module, *mapped((args, named), kept), trained=torch.is_grad_enabled())
        calls.append(call)
        for place, tensor in enumerate(tensors(given)):
            if tensor.requires_grad:
                tensor.register_hook(lambda gradient, place=place: call.gradients.update({place: gradient.clone()}))
        return given

    plain = nn.Module.__call__
    with patch.object(nn.Module, "__call__", watching):
        step(batch, HALFWAY)
    return calls


def leaf(tensor: Tensor) -> Tensor:
    """The same values, where a gradient ends."""
    return tensor.detach().requires_grad_(tensor.requires_grad)


def kept(tensor: Tensor) -> Tensor:
    """A copy, which nothing changes later."""
    return tensor.detach().clone().requires_grad_(tensor.requires_grad)


def mapped(given: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same with other tensors."""

    def one(each: Any) -> Any:
        if isinstance(each, Tensor):
            return change(each)
        if dataclasses.is_dataclass(each) and not isinstance(each, type):
            return dataclasses.replace(each, **mapped(vars(each), change))
        return each

    return tree_map(one, given)


def tensors(given: Any) -> list[Tensor]:
    """All tensors in what a module gives, in order."""
    found: list[Tensor] = []

    def one(each: Tensor) -> Tensor:
        found.append(each)
        return each

    mapped(given, one)
    return found
