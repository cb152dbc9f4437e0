"""Normalisation of ragged batches: padding has no part in a statistic. In training they are those of all ranks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tacit.core import distributed
from tacit.nn.points.padding import padded
from tacit.objectives.precision import wide


class MaskedBatchNorm(nn.Module):
    """Batch-norm of each channel over the true rows; padding comes out as `bias`, not as 0 (PoLAr-MAE).

    Running moments are biased, unlike torch's.

    Args:
        channels: C.
        eps: added to the variance.
    """

    momentum = 0.1
    """How much of a running moment each batch replaces."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """`[..., C]` -> the same; `mask` is bool `[...]`, true for what is no padding, or None where nothing is."""
        if mask is not None:
            return padded(self(x[mask]), mask, self.bias)
        if self.training:
            mean, variance = self._moments(x.flatten(0, -2))
        else:
            mean, variance = self.running_mean, self.running_var
        return (x - mean) * ((variance + self.eps).rsqrt() * self.weight) + self.bias

    def _moments(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and biased variance `[C]`, which also move the running ones."""
        count = distributed.total(rows.new_tensor(float(len(rows)))).clamp(min=1)
        mean = distributed.total(rows.sum(0)) / count
        variance = distributed.total((rows - mean).square().sum(0)) / count
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance, self.momentum)
        return mean, variance


def over_batch(x: Tensor, mask: Tensor, shared: bool = False) -> Tensor:
    """`(x - m) / (s + 1e-13)` with ONE mean m and deviation s for all true tokens and all channels of the batch.

    `n = D sum(mask)`, `m = sum(mask x) / n`, `s = sqrt(sum(mask (x - m)^2) / n + 1e-13)`; gradients flow through both.

    Args:
        x: `[B, T, D]`.
        mask: bool `[B, T]`, the tokens that are counted.
        shared: let the moments be those of all ranks.
    """
    total = distributed.total if shared else torch.Tensor.clone
    counted = mask[..., None]
    count = total(mask.sum().to(x.dtype)).clamp(min=1) * x.shape[-1]
    mean = total((x * counted).sum()) / count
    variance = total(((x - mean) * counted).square().sum()) / count
    return (x - mean) / ((variance + 1e-13).sqrt() + 1e-13)


class BatchLayerNorm(nn.Module):
    """`over_batch`, then a gain and a shift per channel: what a cloud becomes depends on its batch, in evaluation too.

    Args:
        width: D.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """`[B, T, D]` and bool `[B, T]` -> `[B, T, D]`; what is outside the mask comes out, but is not counted."""
        return over_batch(wide(x), mask, shared=self.training).to(x.dtype) * self.weight + self.bias


class TokenLayerNorm(nn.LayerNorm):
    """The usual layer norm, of each token by itself, with the call of `BatchLayerNorm`."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=1e-5)

    def forward(self, input: Tensor, mask: Tensor | None = None) -> Tensor:  # noqa: ARG002 - no token counts for another
        return super().forward(input)


NORMS = {"masked_batch": BatchLayerNorm, "token": TokenLayerNorm}
