"""First values of weights, by the paper that they come from, and a generator of one's own to draw them from."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from tacit.core.draws import key_of


@contextmanager
def seeded(seed: int, name: str) -> Iterator[None]:
    """Weights made inside are a function of (seed, name) alone, and the global generator is left as it was found."""
    low, high = key_of(seed, name)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(low | high << 32)
        yield


def mae(trunk: nn.Module) -> None:
    """Transformers as in MAE: Xavier-uniform (patch embedding as a matrix), zero biases, tokens from N(0, 0.02^2)."""
    for module in trunk.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            _zero_bias(module)
        elif isinstance(module, nn.Conv2d):
            _xavier_as_matrix(module.weight)
    for token in trunk.parameters(recurse=False):
        nn.init.normal_(token, std=0.02)


def moco(trunk: nn.Module) -> None:
    """Transformers as in MoCo v3: as MAE, but q, k and v apart, a zero patch bias, and tokens from N(0, 1e-6^2)."""
    for name, module in trunk.named_modules():
        if isinstance(module, nn.Linear):
            outputs, inputs = module.weight.shape
            limit = math.sqrt(6 / ((outputs // 3 if name.endswith("qkv") else outputs) + inputs))
            nn.init.uniform_(module.weight, -limit, limit)
            _zero_bias(module)
        elif isinstance(module, nn.Conv2d):
            _, channels, *patch = module.weight.shape
            limit = math.sqrt(6 / (channels * math.prod(patch) + module.out_channels))
            nn.init.uniform_(module.weight, -limit, limit)
            _zero_bias(module)
    for token in trunk.parameters(recurse=False):
        nn.init.normal_(token, std=1e-6)


def dino(trunk: nn.Module) -> None:
    """Transformers as in DINO: N(0, 0.02^2) for linears, tokens and learned positions; the patch convolution as it comes."""
    for module in trunk.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            _zero_bias(module)
    for token in trunk.parameters(recurse=False):
        nn.init.trunc_normal_(token, std=0.02)


def kaiming(trunk: nn.Module) -> None:
    """Residual networks as in MoCo v3 and torchvision, convolutions in 2D and 3D: Kaiming normal over the fan-out."""
    for module in trunk.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def truncated(trunk: nn.Module) -> None:
    """Residual networks as in SimCLR: truncated normal (two deviations) with variance 1 / fan-in after the cut."""
    cut = 0.87962566103423978  # the deviation of a unit normal that is cut at 2
    for module in trunk.modules():
        if isinstance(module, nn.Conv2d):
            std = module.weight[0].numel() ** -0.5 / cut
            nn.init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std)


TRANSFORMERS = {"mae": mae, "moco": moco, "dino": dino}
CONVOLUTIONS = {"moco": kaiming, "simclr": truncated}


def _zero_bias(module: nn.Linear | nn.Conv2d) -> None:
    if module.bias is not None:
        nn.init.zeros_(module.bias)


def _xavier_as_matrix(weight: torch.Tensor) -> None:
    nn.init.xavier_uniform_(weight.view(len(weight), -1))
