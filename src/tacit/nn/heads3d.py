"""Heads on the last map of a convolutional encoder for video (RSPNet), and what they look at."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tacit.core.errors import one_of
from tacit.nn.encoder import Encoder
from tacit.nn.norms import BatchNorm

HEADS = ("linear", "mlp", "conv", "convbn")


def last_map(encoder: Encoder, clips: Tensor) -> Tensor:
    """What an encoder makes of clips `[B, C, T, H, W]`, cell by cell: `[B, D, t, h, w]`."""
    return encoder(clips).tokens.transpose(1, 2).unflatten(2, encoder.grid(clips.shape[2:]))


def map_head(kind: str, width: int, out: int = 128) -> nn.Sequential:
    """A head `[B, C, t, h, w]` -> `[B, out]`, not normalised. All its layers have biases and start as the framework's do.

    Args:
        kind: `linear` (mean over the map, linear), `mlp` (mean, linear, ReLU, linear), `conv` (two 3x3x3 convolutions with a
            ReLU between, mean, linear) or `convbn` (convolution, batch-norm, ReLU, mean, linear).
        width: C.
        out: length of the output.
    """
    mean = (nn.AdaptiveAvgPool3d(1), nn.Flatten())
    parts: dict[str, list[nn.Module]] = {
        "linear": [*mean, nn.Linear(width, out)],
        "mlp": [*mean, nn.Linear(width, width), nn.ReLU(), nn.Linear(width, out)],
        "conv": [_conv(width), nn.ReLU(), _conv(width), *mean, nn.Linear(width, out)],
        "convbn": [_conv(width), BatchNorm(width), nn.ReLU(), *mean, nn.Linear(width, out)],
    }
    return nn.Sequential(*parts[one_of("head", kind, HEADS)])


def _conv(width: int) -> nn.Conv3d:
    return nn.Conv3d(width, width, 3, padding=1)


def activation_map(feature: Tensor, weight: Tensor, other: Tensor, other_weight: Tensor) -> Tensor:
    """Where one clip speaks for its similarity to another: `((W_j x_j)^T W_i) F_i`, neither biased nor normalised.

    Args:
        feature: F_i `[B, C, t, h, w]`, the map of the clip to look at.
        weight: W_i `[D, C]`, of its linear head.
        other: F_j, the other clip's map, whose mean over cells is x_j.
        other_weight: W_j.

    Returns:
        `[B, t, h, w]`; its mean is the product of the two heads' outputs without their biases.
    """
    direction = F.linear(other.mean(dim=(2, 3, 4)), other_weight) @ weight  # [B, C]
    return torch.einsum("bc,bcthw->bthw", direction, feature)
