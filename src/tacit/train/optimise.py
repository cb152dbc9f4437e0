"""Groups of parameters, optimisers, clipping."""
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from tacit.core import distributed
from tacit.core.errors import TacitError, nearest, one_of


def groups(
    named: Iterable[tuple[str, nn.Parameter]],
    decays: Callable[[str, Tensor], bool],
    weight_decay: float,
    level: Callable[[str], int] | None = None,
    depth: int = 0,
    layer_decay: float = 1.0,
) -> list[dict[str, Any]]:
    """Trainable parameters that are treated alike, in the order in which they first come.

    Args:
        named: parameters and their names; those without gradient are left out.
        decays: whether weight decay (and LARS's scaling) acts on a parameter.
        weight_decay: for those.
        level: how deep a parameter lies, in `[0, depth + 1]` (`Encoder.level`); needed for layer decay.
        depth: number of the encoder's blocks.
        layer_decay: a rate is multiplied by this once for every level below `depth + 1`.

    Returns:
        Groups with `params`, `weight_decay`, `decays` and `lr_scale`, what the run's rate is multiplied by.
    """
    found: dict[tuple[bool, float], dict[str, Any]] = {}
    for name, parameter in named:
        if not parameter.requires_grad:
            continue
        scale = layer_decay ** (depth + 1 - level(name)) if level else 1.0
        decayed = decays(name, parameter)
        group = found.setdefault(
            (decayed, scale),
            {"params": [], "weight_decay": weight_decay if decayed else 0.0, "decays": decayed, "lr_scale": scale},
        )
        group["params"].append(parameter)
    return list(found.values())


def set_rates(optimiser: Optimizer, lr: float, weight_decay: float | None = None) -> None:
    """Set the rate of every group (times its scale) and, if given, the decay of those that have one."""
    for group in optimiser.param_groups:
        group["lr"] = lr * group["lr_scale"]
        if weight_decay is not None and group["decays"]:
            group["weight_decay"] = weight_decay


class Lars(Optimizer):
    """Layer-wise adaptive rates: each tensor's update is `trust` times as long as the tensor itself.

    With `d = g + wd w` and `q = trust |w| / |d|` (1 if either norm is 0), the buffer v starts at 0 and:

    - MoCo v3 and MAE's probe: `v <- m v + q d; w <- w - lr v`;
    - SimCLR (`fold_lr`): `v <- m v + lr q d; w <- w - v`, which differs as soon as the rate changes.

    Groups with `decays` false (biases, norms) have `d = g` and `q = 1`.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.9,
        trust: float = 0.001,
        weight_decay: float = 0.0,
        fold_lr: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "trust": trust,
            "weight_decay": weight_decay,
            "fold_lr": fold_lr,
            "decays": True,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]  # noqa: ARG002
        for group in self.param_groups:
            trained = [weight for weight in group["params"] if weight.grad is not None]
            if not trained:
                continue
            weights, updates, buffers = (
                [distributed.local(tensor) for tensor in tensors]
                for tensors in (trained, [weight.grad for weight in trained], [self._buffer(weight) for weight in trained])
            )
            if group["decays"]:
                updates = torch._foreach_add(updates, weights, alpha=group["weight_decay"])
                whole = not distributed.in_parts(trained[0])
                w, d = distributed.lengths([*weights, *updates], whole).chunk(2)
                ratios = torch.where((w > 0) & (d > 0), group["trust"] * w / d, 1.0)
                updates = torch._foreach_mul(updates, list(ratios))
            torch._foreach_mul_(buffers, group["momentum"])
            torch._foreach_add_(buffers, updates, alpha=group["lr"] if group["fold_lr"] else 1.0)
            torch._foreach_add_(weights, buffers, alpha=-1.0 if group["fold_lr"] else -group["lr"])

    def _buffer(self, weight: Tensor) -> Tensor:
        state = self.state[weight]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(weight)
        return state["momentum"]


def _adamw(params: list[dict[str, Any]], lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8) -> Optimizer:
    on = {parameter.device.type for group in params for parameter in group["params"]}
    return AdamW(params, lr=lr, betas=(betas[0], betas[1]), eps=eps, fused=on <= {"cpu", "cuda"})


def _sgd(params: list[dict[str, Any]], lr: float, momentum: float = 0.9, nesterov: bool = False) -> Optimizer:
    return SGD(params, lr=lr, momentum=momentum, nesterov=nesterov)


def _lars(params: list[dict[str, Any]], lr: float, momentum: float = 0.9, trust: float = 0.001) -> Optimizer:
    return Lars(params, lr, momentum, trust)


def _lars_simclr(params: list[dict[str, Any]], lr: float, momentum: float = 0.9, trust: float = 0.001) -> Optimizer:
    return Lars(params, lr, momentum, trust, fold_lr=True)


OPTIMISERS: dict[str, Callable[..., Optimizer]] = {"adamw": _adamw, "sgd": _sgd, "lars": _lars, "lars-simclr": _lars_simclr}


def build(name: str, params: list[dict[str, Any]], lr: float, **options: Any) -> Optimizer:
    """An optimiser by name, whose state holds plain tensors and numbers only.

    Args:
        name: `adamw` (options betas, eps), `sgd` (momentum, nesterov), `lars` and `lars-simclr` (momentum, trust; see `Lars`).
        params: what `groups` returned.
        lr: the run's rate; `set_rates` changes it.
        options: of the optimiser; unknown ones are refused.
    """
    make = OPTIMISERS[one_of("optimiser", name, OPTIMISERS)]
    known = list(make.__annotations__)[2:-1]
    for option in options:
        if option not in known:
            raise TacitError(f"{name} has no option '{option}', only {', '.join(known)}{nearest(option, known)}")
    optimiser = make(params, lr, **options)
    set_rates(optimiser, lr)
    return optimiser


def clip(parameters: Iterable[nn.Parameter], limit: float) -> Tensor:
    """Shorten all gradients together to `limit` where they are longer; returns their length before. Infinity only measures."""
    grads, lengths = _gradients(parameters)
    length = lengths.norm()
    torch._foreach_mul_(grads, (limit / (length + 1e-6)).clamp(max=1.0))
    return length


def clip_each(parameters: Iterable[nn.Parameter], limit: float) -> Tensor:
    """Shorten every tensor's gradient by itself to `limit` (DINO); returns the length of all together before."""
    grads, lengths = _gradients(parameters)
    torch._foreach_mul_(grads, list((limit / (lengths + 1e-6)).clamp(max=1.0)))
    return lengths.norm()


def _gradients(parameters: Iterable[nn.Parameter]) -> tuple[list[Tensor], Tensor]:
    """What this rank holds of all gradients, and their whole lengths `[N]`."""
    grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
    own = [distributed.local(grad) for grad in grads]
    return own, distributed.lengths(own, whole=not distributed.in_parts(grads[0]))
