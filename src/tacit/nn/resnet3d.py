"""Convolutional encoders for video, and residual networks among them, with convolutions over time and place or over one after
the other. Parameter names are those of the 2D networks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from torch import Tensor, nn

from tacit.core.errors import TacitError, one_of
from tacit.nn import init as first_values
from tacit.nn.convnet import ConvNet
from tacit.nn.norms import BatchNorm

Triple = tuple[int, int, int]


class Shape(NamedTuple):
    blocks: tuple[int, ...]
    factored: bool = False
    widths: tuple[int, ...] = (64, 128, 256, 512)


VARIANTS = {
    "r3d-mini": Shape((1, 1, 1, 1), widths=(16, 32, 64, 128)),
    "r3d18": Shape((2, 2, 2, 2)),
    "r3d34": Shape((3, 4, 6, 3)),
    "r2plus1d": Shape((1, 1, 1, 1), factored=True),
}

NORMS = ("batch", "group")


def normed(kind: str, channels: int) -> nn.Module:
    """Batch-norm, or group-norm with up to 8 groups, in which no sample learns of the others in its batch."""
    return BatchNorm(channels) if one_of("norm", kind, NORMS) == "batch" else nn.GroupNorm(math.gcd(8, channels), channels)


class VideoConvNet(ConvNet):
    """What convolutional encoders for video have in common; tokens are time-major.

    Attributes:
        shrinking: kernel, stride and padding of all that changes the extent, in order.
    """

    shrinking: list[tuple[Triple, Triple, Triple]]

    def first_map(self, x: Tensor) -> Tensor:
        """Clips `[B, C, T, H, W]` as they are; a `TacitError` where nothing would be left of them."""
        if not all(self.grid(x.shape[2:])):
            raise TacitError(f"clips of {'x'.join(map(str, x.shape[2:]))} are too small for this network; take a smaller one")
        return x

    def grid(self, extent: Sequence[int]) -> tuple[int, ...]:
        sides = list(extent)
        for kernel, stride, padding in self.shrinking:
            sides = [(n + 2 * p - k) // s + 1 for n, k, s, p in zip(sides, kernel, stride, padding, strict=True)]
        return tuple(max(side, 0) for side in sides)


class Factored(nn.Sequential):
    """A convolution over places, then one over time, with about as many weights as one over both (R(2+1)D)."""

    def __init__(
        self, inputs: int, outputs: int, kernel: Triple, stride: Triple, norm: str = "batch", middle: int | None = None
    ) -> None:
        (t, h, w), (step, down, across) = kernel, stride
        middle = middle or t * h * w * inputs * outputs // (h * w * inputs + t * outputs)
        super().__init__(
            nn.Conv3d(inputs, middle, (1, h, w), (1, down, across), (0, h // 2, w // 2), bias=False),
            normed(norm, middle),
            nn.ReLU(),
            nn.Conv3d(middle, outputs, (t, 1, 1), (step, 1, 1), (t // 2, 0, 0), bias=False),
        )


class BasicBlock3d(nn.Module):
    """Two convolutions of 3x3x3 beside a shortcut, which is a projection where the shape changes."""

    def __init__(self, inputs: int, width: int, stride: int, factored: bool, norm: str) -> None:
        super().__init__()
        self.conv1 = _conv(inputs, width, stride, factored, norm)
        self.bn1 = normed(norm, width)
        self.conv2 = _conv(width, width, 1, factored, norm)
        self.bn2 = normed(norm, width)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or inputs != width:
            self.downsample = nn.Sequential(nn.Conv3d(inputs, width, 1, stride, bias=False), normed(norm, width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(x)).relu()
        return (self.bn2(self.conv2(y)) + self.downsample(x)).relu()


def _conv(inputs: int, width: int, stride: int, factored: bool, norm: str) -> nn.Module:
    if factored:
        return Factored(inputs, width, (3, 3, 3), (stride, stride, stride), norm)
    return nn.Conv3d(inputs, width, 3, stride, padding=1, bias=False)


class ResNet3d(VideoConvNet):
    """A stem and four stages of residual blocks; all stages but the first halve time and place.

    Args:
        channels: of the frames.
        blocks: how many each stage has.
        factored: convolve over places and over time one after the other (R(2+1)D).
        widths: of the stages; the stem is as wide as the first.
        stem: `full` (7x7x7, halves places, max-pool of 3 with stride 2; factored: 3x7x7 and no pool) or `small` (3x3x3, halves
            places), for frames up to 64 pixels.
        norm: `batch` or `group`.
    """

    def __init__(
        self,
        channels: int,
        blocks: Sequence[int],
        factored: bool = False,
        widths: Sequence[int] = (64, 128, 256, 512),
        stem: str = "full",
        norm: str = "batch",
    ) -> None:
        super().__init__()
        one_of("stem", stem, ("full", "small"))
        side, long = (3 if stem == "small" else 7), (3 if stem == "small" or factored else 7)
        kernel, stride = (long, side, side), (1, 2, 2)
        if factored:
            first: nn.Module = Factored(channels, widths[0], kernel, stride, norm, middle=45)
        else:
            first = nn.Conv3d(channels, widths[0], kernel, stride, (long // 2, side // 2, side // 2), bias=False)
        self.stem = nn.Sequential()
        self.stem.add_module("conv1", first)
        self.stem.add_module("bn1", normed(norm, widths[0]))
        self.stem.add_module("relu", nn.ReLU())
        self.shrinking = [(kernel, stride, (long // 2, side // 2, side // 2))]
        half: tuple[Triple, Triple, Triple] = ((3, 3, 3), (2, 2, 2), (1, 1, 1))
        if stem == "full" and not factored:
            self.stem.add_module("maxpool", nn.MaxPool3d(*half))
            self.shrinking.append(half)
        self.shrinking += [half] * (len(widths) - 1)
        self.counts = {"stem": 0}
        block = partial(BasicBlock3d, factored=factored, norm=norm)
        self.width = self.add_stages(block, widths[0], blocks, widths)
        first_values.kaiming(self)
