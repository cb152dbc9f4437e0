"""Batch normalisation whose statistics are those of the whole batch, on however many ranks it lies."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tacit.core import distributed
from tacit.objectives.precision import wide


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
            return self._over_ranks(x)
        moments = self.running_mean, self.running_var
        return F.batch_norm(x, *moments, self.weight, self.bias, self.training, self.momentum, self.eps)

    def _over_ranks(self, x: Tensor) -> Tensor:
        mean, variance = _global_moments(wide(x))
        with torch.no_grad():
            rows = distributed.world_size() * x.numel() // x.shape[1]
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (rows / (rows - 1)), self.momentum)
        shape = [1, -1] + [1] * (x.ndim - 2)
        y = (wide(x) - mean.view(shape)) * (variance + self.eps).rsqrt().view(shape)
        if self.weight is not None:
            y = y * self.weight.view(shape)
        if self.bias is not None:
            y = y + self.bias.view(shape)
        return y.to(x.dtype)


def _global_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance `[C]` over the rows of all ranks."""
    axes = [0, *range(2, x.ndim)]
    local = torch.stack([x.mean(axes), x.var(axes, correction=0)])
    means, variances = distributed.gather(local[None]).unbind(1)  # [W, C] each
    mean = means.mean(0)
    return mean, variances.mean(0) + (means - mean).square().mean(0)
