"""Batch normalisation whose statistics are those of the whole batch, on however many ranks it lies."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tacit.core import distributed
from tacit.objectives.precision import wide

M = TypeVar("M", bound=nn.Module)


class BatchNorm(nn.Module):
    """Batch-norm over all axes but the second, for `[B, C]` and `[B, C, H, W]` alike.

    In training on several ranks, which have equally many rows each, the moments are those of all ranks and gradients flow
    through them, on any device (`nn.SyncBatchNorm` does it on GPUs only).

    Args:
        channels: C.
        gain: whether there is a trained factor per channel.
        shift: whether there is a trained summand per channel.
        eps: added to the variance.
    """

    momentum = 0.1
    """How much of a running moment each batch replaces."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, gain: bool = True, shift: bool = True, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels)) if gain else None
        self.bias = nn.Parameter(torch.zeros(channels)) if shift else None
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        if self.training and distributed.world_size() > 1:
            return _over_ranks(self, self.momentum, x)
        moments = self.running_mean, self.running_var
        return F.batch_norm(x, *moments, self.weight, self.bias, self.training, self.momentum, self.eps)


class _Synchronised(nn.modules.batchnorm._BatchNorm):
    """torch's batch-norm with the moments of all ranks."""

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def forward(self, input: Tensor) -> Tensor:
        if self.training and self.momentum is not None and distributed.world_size() > 1:
            self.num_batches_tracked.add_(1)  # pyright: ignore[reportOptionalMemberAccess]
            return _over_ranks(self, self.momentum, input)
        return super().forward(input)


def synchronise(module: nn.Module) -> None:
    """Let every batch-norm of torch in a module, such as encoders from elsewhere bring along, see the moments of all ranks."""
    for part in module.modules():
        if type(part) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d) and part.running_mean is not None:
            part.__class__ = _Synchronised


def settled(module: M, batches: Iterable[Tensor]) -> M:
    """A copy in evaluation mode whose running moments are the means over these batches; where it has none, the module itself.

    They settle in training even if no weight moves, which alone can make samples easier to tell apart: that is no learning.
    Batches of one sample, which has no deviation, are left out.
    """
    if not any("running_mean" in part._buffers for part in module.modules()):
        return module
    module = copy.deepcopy(module).eval()
    norms: list[Any] = [part for part in module.modules() if "running_mean" in part._buffers]
    usual = [norm.momentum for norm in norms]
    with torch.no_grad(), distributed.apart():
        for number, batch in enumerate(batch for batch in batches if len(batch) > 1):
            for norm in norms:
                norm.train()
                norm.momentum = 1 / (number + 1)  # the mean over all batches
            module(batch)
    for norm, momentum in zip(norms, usual, strict=True):
        norm.momentum = momentum
    return module.eval()


def _over_ranks(norm: BatchNorm | _Synchronised, momentum: float, x: Tensor) -> Tensor:
    mean, variance = _global_moments(wide(x))
    assert norm.running_mean is not None
    assert norm.running_var is not None
    with torch.no_grad():
        rows = distributed.world_size() * x.numel() // x.shape[1]
        norm.running_mean.lerp_(mean, momentum)
        norm.running_var.lerp_(variance * (rows / (rows - 1)), momentum)
    shape = [1, -1] + [1] * (x.ndim - 2)
    y = (wide(x) - mean.view(shape)) * (variance + norm.eps).rsqrt().view(shape)
    if norm.weight is not None:
        y = y * norm.weight.view(shape)
    if norm.bias is not None:
        y = y + norm.bias.view(shape)
    return y.to(x.dtype)


def _global_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance `[C]` over the rows of all ranks, in one message of 2 C numbers.

    In float64, because the variance is what is left of the mean of squares when the square of the mean is taken off.
    """
    axes = [0, *range(2, x.ndim)]
    mean, variance = x.mean(axes).double(), x.var(axes, correction=0).double()
    mean, square = (distributed.total(torch.stack([mean, variance + mean.square()])) / distributed.world_size()).unbind()
    return mean.to(x.dtype), (square - mean.square()).to(x.dtype)
