"""S3D-G: inception blocks whose convolutions go over places, then over time, with gates on their channels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tacit.nn import init as first_values
from tacit.nn.resnet3d import Triple, VideoConvNet, normed

MIXED = {
    "mixed_3b": (64, 96, 128, 16, 32, 32),
    "mixed_3c": (128, 128, 192, 32, 96, 64),
    "mixed_4b": (192, 96, 208, 16, 48, 64),
    "mixed_4c": (160, 112, 224, 24, 64, 64),
    "mixed_4d": (128, 128, 256, 24, 64, 64),
    "mixed_4e": (112, 144, 288, 32, 64, 64),
    "mixed_4f": (256, 160, 320, 32, 128, 128),
    "mixed_5b": (256, 160, 320, 32, 128, 128),
    "mixed_5c": (384, 192, 384, 48, 128, 128),
}
"""Widths of each block's branches, as in Inception v1: 1x1x1; 1x1x1 and 3x3x3; 1x1x1 and 3x3x3; pool and 1x1x1."""


class Gate(nn.Module):
    """`x * sigmoid(W mean(x) + b)`, one factor per channel and sample."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc(x.mean(dim=(2, 3, 4))).sigmoid()[:, :, None, None, None]


def _plain(inputs: int, outputs: int, norm: str) -> nn.Sequential:
    return nn.Sequential(nn.Conv3d(inputs, outputs, 1, bias=False), normed(norm, outputs), nn.ReLU())


def _separable(inputs: int, outputs: int, side: int, stride: int, norm: str) -> nn.Sequential:
    """A convolution over places, one over time, each with norm and ReLU."""
    half = side // 2
    return nn.Sequential(
        nn.Conv3d(inputs, outputs, (1, side, side), (1, stride, stride), (0, half, half), bias=False),
        normed(norm, outputs),
        nn.ReLU(),
        nn.Conv3d(outputs, outputs, (side, 1, 1), (stride, 1, 1), (half, 0, 0), bias=False),
        normed(norm, outputs),
        nn.ReLU(),
    )


class Inception(nn.Module):
    """Four branches side by side, each with a gate at its end."""

    def __init__(self, inputs: int, widths: tuple[int, ...], norm: str) -> None:
        super().__init__()
        a, b0, b1, c0, c1, d = widths
        self.branch0 = nn.Sequential(_plain(inputs, a, norm), Gate(a))
        self.branch1 = nn.Sequential(_plain(inputs, b0, norm), _separable(b0, b1, 3, 1, norm), Gate(b1))
        self.branch2 = nn.Sequential(_plain(inputs, c0, norm), _separable(c0, c1, 3, 1, norm), Gate(c1))
        self.branch3 = nn.Sequential(nn.MaxPool3d(3, 1, padding=1), _plain(inputs, d, norm), Gate(d))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch0(x), self.branch1(x), self.branch2(x), self.branch3(x)], dim=1)


class S3DG(VideoConvNet):
    """S3D with gates (Xie et al., ECCV 2018): time is halved in the stem and before the fourth and fifth group of blocks.

    Args:
        channels: of the frames.
        multiplier: of all widths, 1 for the published ones, which end at 1,024.
        norm: `batch` or `group`.
    """

    def __init__(self, channels: int, multiplier: float = 1.0, norm: str = "batch") -> None:
        super().__init__()

        def wide(width: int) -> int:
            return max(1, round(width * multiplier))

        first, second = wide(64), wide(192)
        places: tuple[Triple, Triple, Triple] = ((1, 3, 3), (1, 2, 2), (0, 1, 1))
        third: tuple[Triple, Triple, Triple] = ((3, 3, 3), (2, 2, 2), (1, 1, 1))
        fourth: tuple[Triple, Triple, Triple] = ((2, 2, 2), (2, 2, 2), (0, 0, 0))
        self.stem = nn.Sequential(
            _separable(channels, first, 7, 2, norm),
            nn.MaxPool3d(*places),
            _plain(first, first, norm),
            _separable(first, second, 3, 1, norm),
            Gate(second),
        )
        self.shrinking = [((7, 7, 7), (2, 2, 2), (3, 3, 3)), places, places, third, fourth]
        pools = {"mixed_3b": ("pool3", places), "mixed_4b": ("pool4", third), "mixed_5b": ("pool5", fourth)}
        inputs, self.counts = second, {"stem": 0}
        for name, published in MIXED.items():
            if name in pools:
                pool, window = pools[name]
                self.add_module(pool, nn.MaxPool3d(*window))
                self.counts[pool] = 0
            widths = tuple(wide(width) for width in published)
            self.add_module(name, Inception(inputs, widths, norm))
            self.counts[name] = 1
            inputs = widths[0] + widths[2] + widths[4] + widths[5]
        self.depth, self.width = len(MIXED), inputs
        first_values.kaiming(self)
