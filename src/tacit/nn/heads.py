"""What stands between an encoder's features and a loss, and is thrown away after pretraining."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tacit.nn.norms import BatchNorm


class SimCLRProjector(nn.Module):
    """Linear layers, each followed by batch-norm, with ReLU between: `[B, D]` -> `[B, out]`, not normalised.

    No linear has a bias, since a norm follows; the last norm has a gain but no shift. Weights start as N(0, 0.01^2).

    Args:
        width: D.
        layers: 0 (the features themselves), 1, 2 (SimCLR) or 3 (its second version).
        hidden: width of the hidden layers; D if None.
        out: length of the output.
    """

    def __init__(self, width: int, layers: int = 2, hidden: int | None = None, out: int = 128, eps: float = 1e-5) -> None:
        super().__init__()
        self.layers = nn.Sequential()
        widths = [width, *[hidden or width] * (layers - 1), out]
        for index in range(layers):
            last = index == layers - 1
            linear = nn.Linear(widths[index], widths[index + 1], bias=False)
            nn.init.normal_(linear.weight, std=0.01)
            parts = OrderedDict[str, nn.Module](linear=linear, bn=BatchNorm(widths[index + 1], shift=not last, eps=eps))
            if not last:
                parts["relu"] = nn.ReLU()
            self.layers.append(nn.Sequential(parts))

    def forward(self, features: Tensor) -> Tensor:
        return self.layers(features)


def moco_mlp(widths: Sequence[int], last_norm: bool = True, norm: bool = True, eps: float = 1e-5) -> nn.Sequential:
    """Projector or predictor of MoCo v3: linears without bias, each followed by batch-norm, ReLU between.

    Weights start as the framework's linears do, uniform +-1/sqrt(fan-in).

    Args:
        widths: from input to output, (384, 4096, 4096, 256) for the projector of a ViT-S.
        last_norm: whether the output is normalised, without gain and shift (not so in the predictor of a ResNet).
        norm: without it there is no batch-norm anywhere, and linears have biases.
        eps: of the norms.
    """
    mlp = nn.Sequential()
    for index, (inputs, outputs) in enumerate(pairwise(widths)):
        last = index == len(widths) - 2
        mlp.append(nn.Linear(inputs, outputs, bias=not norm))
        if norm and (last_norm or not last):
            mlp.append(BatchNorm(outputs, gain=not last, shift=not last, eps=eps))
        if not last:
            mlp.append(nn.ReLU())
    return mlp


class Prototypes(nn.Module):
    """A linear layer without bias, whose rows are a direction times a gain: `logits_k = g_k * x . v_k / |v_k|`."""

    def __init__(self, width: int, count: int, fixed_gain: bool) -> None:
        super().__init__()
        self.weight_g = nn.Parameter(torch.ones(count, 1), requires_grad=not fixed_gain)
        self.weight_v = nn.Parameter(torch.empty(count, width).uniform_(-(width**-0.5), width**-0.5))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight_g * self.weight_v / self.weight_v.norm(dim=1, keepdim=True))


class DINOHead(nn.Module):
    """An MLP to a bottleneck, a point on the sphere, cosines to K prototypes: `[B, D]` -> logits `[B, K]`.

    With a fixed gain of 1 the logits lie in [-1, 1]. Linears start as a truncated N(0, 0.02^2) with zero biases.

    Args:
        width: D.
        out: K.
        hidden: width of the hidden layers.
        bottleneck: dimensions of the sphere.
        layers: linears of the MLP, the bottleneck's included.
        fixed_gain: whether the prototypes' gains stay 1 (`norm_last_layer` in the official code).
        batch_norm: put batch-norm before the hidden GELUs.
    """

    def __init__(
        self,
        width: int,
        out: int = 65536,
        hidden: int = 2048,
        bottleneck: int = 256,
        layers: int = 3,
        fixed_gain: bool = True,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        self.mlp = nn.Sequential()
        widths = [width, *[hidden] * (layers - 1), bottleneck]
        for index in range(layers):
            linear = nn.Linear(widths[index], widths[index + 1])
            nn.init.trunc_normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)
            self.mlp.append(linear)
            if index < layers - 1:
                if batch_norm:
                    self.mlp.append(BatchNorm(hidden))
                self.mlp.append(nn.GELU())
        self.last_layer = Prototypes(bottleneck, out, fixed_gain)

    def forward(self, features: Tensor) -> Tensor:
        return self.last_layer(F.normalize(self.mlp(features), dim=-1, eps=1e-12))

    def hold(self) -> None:
        """Leave the prototypes as they are in this step: without a gradient, neither decay nor momentum moves them."""
        for name, parameter in self.named_parameters():
            if name.startswith("last_layer"):
                parameter.grad = None
