"""Residual networks for any number of channels, with a stem for small images. Parameter names are timm's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from tacit.core.draws import Draws
from tacit.core.errors import TacitError, one_of
from tacit.nn import init as first_values
from tacit.nn.encoder import DEEPEST, Encoded, Encoder
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


class ResNet(Encoder):
    """A stem and four stages of residual blocks.

    Args:
        channels: of the images.
        blocks: how many each stage has.
        bottleneck: which kind of block.
        widths: of the stages; the stem is as wide as the first.
        multiplier: widens everything (SimCLR's x2 and x4).
        stem: `imagenet` (7x7 with stride 2, max-pool) or `small` (3x3, stride 1, no pool), for images up to 64 pixels.
        zero_gain: start every residual block as its shortcut, the gain of its last batch-norm being 0.
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
        if not 0 < sum(blocks) <= DEEPEST:
            raise TacitError(f"{sum(blocks)} blocks were asked for; 1 to {DEEPEST:,} were expected")
        one_of("stem", stem, ("imagenet", "small"))
        one_of("init", init, first_values.CONVOLUTIONS)
        block = Bottleneck if bottleneck else BasicBlock
        widths = [width * multiplier for width in widths]
        self.depth, self.width = sum(blocks), widths[-1] * block.expansion
        self.halvings = (2 if stem == "imagenet" else 0) + len(widths) - 1
        if stem == "imagenet":
            self.conv1 = nn.Conv2d(channels, widths[0], 7, stride=2, padding=3, bias=False)
            self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        else:
            self.conv1 = nn.Conv2d(channels, widths[0], 3, padding=1, bias=False)
            self.maxpool = nn.Identity()
        self.bn1 = BatchNorm(widths[0])
        self.stages, inputs = list(blocks), widths[0]
        for stage, (count, width) in enumerate(zip(blocks, widths, strict=True)):
            layer = nn.Sequential()
            for index in range(count):
                layer.append(block(inputs, width, stride=2 if stage > 0 and index == 0 else 1))
                inputs = width * block.expansion
            self.add_module(f"layer{stage + 1}", layer)
        first_values.CONVOLUTIONS[init](self)
        if zero_gain:
            for module in self.modules():
                if isinstance(module, BasicBlock | Bottleneck):
                    nn.init.zeros_(module.last_norm().get_parameter("weight"))

    def forward(
        self,
        x: Tensor,
        keep: Tensor | None = None,
        draws: Draws | None = None,  # noqa: ARG002 - nothing is dropped here
        taps: Sequence[str] = (),
        attention: bool = False,
    ) -> Encoded:
        """See `Encoder.forward`. Tokens are the cells of the last map, row by row; a tap `layer2` is a map `[B, C, h, w]`."""
        if keep is not None or attention:
            raise TacitError(
                "a residual network has no tokens to hide and no attention to show; take a transformer (vit-mini, ...)"
            )
        names = [f"layer{stage + 1}" for stage in range(len(self.stages))]
        for tap in taps:
            one_of("tap", tap, names)
        x, seen = self.maxpool(self.bn1(self.conv1(x)).relu()), {}
        for name in names:
            x = self.get_submodule(name)(x)
            if name in taps:
                seen[name] = x
        tokens = x.flatten(2).transpose(1, 2)
        return Encoded(tokens.mean(dim=1), tokens, taps=seen)

    def grid(self, extent: Sequence[int]) -> tuple[int, ...]:
        """Every halving rounds up."""
        return tuple(-(-side // 2**self.halvings) for side in extent)

    def level(self, name: str) -> int:
        if not name.startswith("layer"):
            return 0
        stage, index = name.removeprefix("layer").split(".")[:2]
        return sum(self.stages[: int(stage) - 1]) + int(index) + 1
