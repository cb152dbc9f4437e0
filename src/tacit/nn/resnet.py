"""Residual networks for any number of channels, with a stem for small images. Parameter names are timm's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from tacit.core.errors import one_of
from tacit.nn import init as first_values
from tacit.nn.convnet import ConvNet
from tacit.nn.norms import BatchNorm


class Shape(NamedTuple):
    blocks: tuple[int, ...]
    bottleneck: bool = False
    widths: tuple[int, ...] = (64, 128, 256, 512)


VARIANTS = {
    "resnet-mini": Shape((1, 1, 1, 1), widths=(32, 64, 128, 256)),
    "resnet18": Shape((2, 2, 2, 2)),
    "resnet34": Shape((3, 4, 6, 3)),
    "resnet50": Shape((3, 4, 6, 3), bottleneck=True),
    "resnet101": Shape((3, 4, 23, 3), bottleneck=True),
    "resnet152": Shape((3, 8, 36, 3), bottleneck=True),
}


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False)
        self.bn1 = BatchNorm(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = BatchNorm(width)
        self.downsample = _shortcut(inputs, width, stride)

    def last_norm(self) -> BatchNorm:
        return self.bn2

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(x)).relu()
        return (self.bn2(self.conv2(y)) + self.downsample(x)).relu()


class Bottleneck(nn.Module):
    """1x1, 3x3 (which carries the stride) and 1x1 convolutions beside a shortcut; four times as wide at its end."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = BatchNorm(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = BatchNorm(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = BatchNorm(4 * width)
        self.downsample = _shortcut(inputs, 4 * width, stride)

    def last_norm(self) -> BatchNorm:
        return self.bn3

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y)).relu()
        return (self.bn3(self.conv3(y)) + self.downsample(x)).relu()


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), BatchNorm(outputs))


def start_as_shortcuts(network: nn.Module) -> None:
    """Let every residual block add nothing at first, the gain of its last batch-norm being 0."""
    for module in network.modules():
        if isinstance(module, BasicBlock | Bottleneck):
            nn.init.zeros_(module.last_norm().get_parameter("weight"))


class ResNet(ConvNet):
    """A stem and four stages of residual blocks.

    Args:
        channels: of the images.
        blocks: how many each stage has.
        bottleneck: which kind of block.
        widths: of the stages; the stem is as wide as the first.
        multiplier: widens everything (SimCLR's x2 and x4).
        stem: `imagenet` (7x7 with stride 2, max-pool) or `small` (3x3, stride 1, no pool), for images up to 64 pixels.
        zero_gain: see `start_as_shortcuts`.
        init: whose first values of convolutions: `moco` or `simclr`.
    """

    def __init__(
        self,
        channels: int,
        blocks: Sequence[int],
        bottleneck: bool = False,
        widths: Sequence[int] = (64, 128, 256, 512),
        multiplier: int = 1,
        stem: str = "imagenet",
        zero_gain: bool = False,
        init: str = "moco",
    ) -> None:
        super().__init__()
        one_of("stem", stem, ("imagenet", "small"))
        one_of("init", init, first_values.CONVOLUTIONS)
        block = Bottleneck if bottleneck else BasicBlock
        widths = [width * multiplier for width in widths]
        self.halvings = (2 if stem == "imagenet" else 0) + len(widths) - 1
        if stem == "imagenet":
            self.conv1 = nn.Conv2d(channels, widths[0], 7, stride=2, padding=3, bias=False)
            self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        else:
            self.conv1 = nn.Conv2d(channels, widths[0], 3, padding=1, bias=False)
            self.maxpool = nn.Identity()
        self.bn1 = BatchNorm(widths[0])
        self.counts = {}
        self.width = self.add_stages(block, widths[0], blocks, widths, block.expansion)
        first_values.CONVOLUTIONS[init](self)
        if zero_gain:
            start_as_shortcuts(self)

    def first_map(self, x: Tensor) -> Tensor:
        """What the stem makes of images: `[B, C, H, W]` -> `[B, width, h, w]`."""
        return self.maxpool(self.bn1(self.conv1(x)).relu())

    def grid(self, extent: Sequence[int]) -> tuple[int, ...]:
        """Every halving rounds up."""
        return tuple(-(-side // 2**self.halvings) for side in extent)
