"""3D Swin transformers for volumes: the encoder, and beside it the decoder that makes a U of it (nnFormer's arrangement).

Attention stays inside windows, every second block's windows are shifted by half, and stages are merged by convolutions of
stride 2. The network is tacit's own and not MONAI's `SwinTransformer`, whose blocks it equals weight by weight: that one
reads drop path from the global generator, has one window for all stages, gives wrong offsets to windows that a small map
cuts short (it takes the first rows of the whole window's index), lets tokens attend to padding, and takes seconds to import.
Parameter names are timm's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tacit.core.draws import Draws
from tacit.core.errors import TacitError, one_of
from tacit.nn import init as first_values
from tacit.nn.blocks import Mlp, drop_path
from tacit.nn.encoder import Encoded, Encoder, bounded
from tacit.nn.trunk import rising
from tacit.nn.windows3d import CrossWindowAttention, WindowAttention
from tacit.objectives.precision import wide


class Shape(NamedTuple):
    width: int
    heads: tuple[int, ...]
    windows: tuple[int, ...]
    depths: tuple[int, ...] = (2, 2, 2, 2)


VARIANTS = {
    "swin3d-micro": Shape(16, (2, 4, 8, 16), (4, 4, 4, 4)),
    "swin3d-mini": Shape(24, (3, 6, 12, 24), (4, 4, 4, 4)),
    "swin3d-base": Shape(48, (6, 12, 24, 48), (4, 4, 8, 4)),
}
"""The last is nnFormer's size. Windows as large as a map, or larger, become the map."""


class SwinBlock(nn.Module):
    """`x += attn(norm1(x)); x += mlp(norm2(x))` on maps `[B, X, Y, Z, D]`, each branch with drop path."""

    def __init__(self, width: int, heads: int, window: int, shifted: bool, mlp_ratio: float, drop_path: float) -> None:
        super().__init__()
        self.drop_path = drop_path
        self.norm1 = nn.LayerNorm(width)
        self.attn = WindowAttention(width, heads, window, shifted)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, int(width * mlp_ratio))

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        x = x + drop_path(self.attn(self.norm1(x)), self.drop_path, draws, "attn")
        return x + drop_path(self.mlp(self.norm2(x)), self.drop_path, draws, "mlp")


class CrossSwinBlock(nn.Module):
    """The first block after going up: what came up asks what the encoder had there, and both are the residual."""

    def __init__(self, width: int, heads: int, window: int, mlp_ratio: float, drop_path: float) -> None:
        super().__init__()
        self.drop_path = drop_path
        self.norm1 = nn.LayerNorm(width)
        self.attn = CrossWindowAttention(width, heads, window)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, int(width * mlp_ratio))

    def forward(self, up: Tensor, skip: Tensor, draws: Draws | None = None) -> Tensor:
        x = up + skip + drop_path(self.attn(self.norm1(up), self.norm1(skip)), self.drop_path, draws, "attn")
        return x + drop_path(self.mlp(self.norm2(x)), self.drop_path, draws, "mlp")


class Stem(nn.Module):
    """Four 3x3x3 convolutions, the first with stride 2, each followed by GELU (but the last) and a layer norm."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        widths = [channels, width // 2, width // 2, width, width]
        self.convs = nn.ModuleList(
            nn.Conv3d(widths[i], widths[i + 1], 3, stride=2 if i == 0 else 1, padding=1) for i in range(4)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(side) for side in widths[1:])

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, X, Y, Z]` -> `[B, X / 2, Y / 2, Z / 2, D]`, halves rounded up."""
        x = x.movedim(1, -1)
        for index, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = _through(conv, x)
            x = norm(F.gelu(x) if index < 3 else x)
        return x


class Merge(nn.Module):
    """From one stage to the next: GELU, layer norm, a 3x3x3 convolution with stride 2 that doubles the width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.reduction = nn.Conv3d(width, 2 * width, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return _through(self.reduction, self.norm(F.gelu(x)))


class Stage(nn.Module):
    """Merging (not in the first stage), then blocks of which every second is shifted."""

    def __init__(self, first: bool, width: int, heads: int, window: int, mlp_ratio: float, rates: Sequence[float]) -> None:
        super().__init__()
        self.downsample = nn.Identity() if first else Merge(width // 2)
        self.blocks = nn.ModuleList(
            SwinBlock(width, heads, window, index % 2 == 1, mlp_ratio, rate) for index, rate in enumerate(rates)
        )

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        x = wide(self.downsample(x))  # what blocks add to stays exact, also under autocast
        for index, block in enumerate(self.blocks):
            x = block(x, draws.within(f"blocks.{index}") if draws else None)
        return x


class Swin3D(Encoder):
    """A convolutional stem of stride 2, fixed 3D sin-cos positions, stages of window attention, a last layer norm.

    It serves volumes of any extent: maps that windows do not divide are padded, and nothing attends to the padding.

    Args:
        channels: of the volumes.
        width: D of the first stage; even. It doubles from stage to stage.
        heads: of each stage.
        windows: side of each stage's windows, in cells of its map.
        depths: blocks of each stage.
        mlp_ratio: hidden width of the MLPs over D.
        drop_path: chance that a branch is dropped in the last block; it grows linearly from 0 in the first.

    Attributes:
        maps: the taps that `Swin3DDecoder` takes: the outputs of all stages but the last, and the last one after its norm.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        heads: Sequence[int],
        windows: Sequence[int],
        depths: Sequence[int] = (2, 2, 2, 2),
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        if not len(heads) == len(windows) == len(depths) > 0 or min(*heads, *windows, *depths, width // 2) < 1 or width % 2:
            raise TacitError(
                f"a 3D Swin of width {width} with depths {list(depths)}, heads {list(heads)} and windows {list(windows)}: "
                "the width is even, and each stage has one of each, at least 1"
            )
        self.stem_width, self.heads, self.windows, self.depths = width, list(heads), list(windows), list(depths)
        self.mlp_ratio, self.drop_path = mlp_ratio, drop_path
        self.depth, self.width = bounded(sum(depths)), width * 2 ** (len(depths) - 1)
        self.maps = [*(f"layers.{stage}" for stage in range(len(depths) - 1)), "norm"]
        self.patch_embed = Stem(channels, width)
        rates = iter(rising(drop_path, self.depth))
        self.layers = nn.ModuleList(
            Stage(stage == 0, width * 2**stage, heads[stage], windows[stage], mlp_ratio, [next(rates) for _ in range(depth)])
            for stage, depth in enumerate(depths)
        )
        self.norm = nn.LayerNorm(self.width)
        _first_values(self)

    def forward(
        self,
        x: Tensor,
        keep: Tensor | None = None,
        draws: Draws | None = None,
        taps: Sequence[str] = (),
        attention: bool = False,
    ) -> Encoded:
        """See `Encoder.forward`. `x` is `[B, C, X, Y, Z]`; tokens are the cells of the last map, the last axis fastest.

        `pooled` is their mean. Taps are maps `[B, D, x, y, z]`: `layers.i` as the stage leaves it, `norm` the normalised last.
        """
        if keep is not None or attention:
            raise TacitError("a 3D Swin has windows, so no tokens to hide and no map of attention; take a transformer")
        names = [*(f"layers.{stage}" for stage in range(len(self.layers))), "norm"]
        for tap in taps:
            one_of("tap", tap, names)
        x, seen = self.patch_embed(x), {}
        x = x + positions(self.stem_width, x.shape[1:4], x)
        for name, layer in zip(names, self.layers, strict=False):
            x = seen[name] = layer(x, draws.within(name) if draws else None)
        x = seen["norm"] = self.norm(x)
        tokens = x.flatten(1, 3)
        return Encoded(tokens.mean(dim=1), tokens, taps={tap: seen[tap].movedim(-1, 1) for tap in taps})

    def grid(self, extent: Sequence[int]) -> tuple[int, ...]:
        """Every halving rounds up."""
        return tuple(-(-side // 2 ** len(self.layers)) for side in extent)

    def level(self, name: str) -> int:
        if not name.startswith("layers."):
            return self.depth + 1 if name.startswith("norm.") else 0
        stage, part, index = name.removeprefix("layers.").split(".")[:3]
        before = sum(self.depths[: int(stage)])
        return before + int(index) + 1 if part == "blocks" else before + 1


class Up(nn.Module):
    """One step up: layer norm, a transposed convolution that doubles the map, a cross block with the skip, further blocks."""

    def __init__(self, width: int, heads: int, window: int, mlp_ratio: float, rates: Sequence[float]) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(2 * width)
        self.up = nn.ConvTranspose3d(2 * width, width, 2, stride=2)
        self.skip_norm = nn.LayerNorm(width)
        self.cross = CrossSwinBlock(width, heads, window, mlp_ratio, rates[0])
        self.blocks = nn.ModuleList(
            SwinBlock(width, heads, window, index % 2 == 0, mlp_ratio, rate) for index, rate in enumerate(rates[1:])
        )

    def forward(self, x: Tensor, skip: Tensor, draws: Draws | None = None) -> Tensor:
        """`[B, x, y, z, 2 D]` and the skip map `[B, X, Y, Z, D]` -> `[B, X, Y, Z, D]`, with `X` at most `2 x`."""
        up = _through(self.up, self.norm(x))[:, : skip.shape[1], : skip.shape[2], : skip.shape[3]]
        x = self.cross(up, self.skip_norm(skip), draws.within("cross") if draws else None)
        for index, block in enumerate(self.blocks):
            x = block(x, draws.within(f"blocks.{index}") if draws else None)
        return x


class Swin3DDecoder(nn.Module):
    """From the maps of a `Swin3D` back to voxels; each step up has width, heads, window and depth of the stage that it meets.

    Args:
        encoder: whose maps it will get; only its sizes are read.
        channels: of the volumes that it makes.
    """

    def __init__(self, encoder: Swin3D, channels: int) -> None:
        super().__init__()
        if len(encoder.depths) < 2:
            raise TacitError("a decoder needs an encoder of at least two stages, this one has 1")
        e, stages = encoder, range(len(encoder.depths) - 2, -1, -1)
        rates = iter(rising(e.drop_path, sum(e.depths[:-1])))
        self.width = e.width // 2
        """Of the tokens of the first map."""
        self.layers = nn.ModuleList(
            Up(e.stem_width * 2**i, e.heads[i], e.windows[i], e.mlp_ratio, [next(rates) for _ in range(e.depths[i])])
            for i in stages
        )
        self.head = nn.ConvTranspose3d(e.stem_width, channels, 2, stride=2)
        _first_values(self)

    def first(self, maps: Sequence[Tensor], draws: Draws | None = None) -> Tensor:
        """The first decoder map alone, as tokens `[B, M, D']`, its last axis fastest: all that a teacher has to make.

        Args:
            maps: `[B, D_i, x_i, y_i, z_i]`, the encoder's taps `encoder.maps`, the finest first.
            draws: what drop path is drawn from; without it nothing is dropped.
        """
        return self._up(0, maps[-1].movedim(1, -1), maps, draws).flatten(1, 3)

    def forward(self, maps: Sequence[Tensor], extent: Sequence[int], draws: Draws | None = None) -> tuple[Tensor, Tensor]:
        """As `first`, and the reconstruction `[B, C, *extent]` of volumes of this extent (linear, without a range)."""
        x = self._up(0, maps[-1].movedim(1, -1), maps, draws)
        tokens = x.flatten(1, 3)
        for index in range(1, len(self.layers)):
            x = self._up(index, x, maps, draws)
        return tokens, self.head(x.movedim(-1, 1))[:, :, : extent[0], : extent[1], : extent[2]]

    def _up(self, index: int, x: Tensor, maps: Sequence[Tensor], draws: Draws | None) -> Tensor:
        return self.layers[index](x, maps[-2 - index].movedim(1, -1), draws.within(f"up.{index}") if draws else None)


def positions(width: int, grid: Sequence[int], like: Tensor) -> Tensor:
    """Fixed positions `[x, y, z, width]` with the deviation 0.02 of learned ones, in dtype and on the device of `like`.

    A third of the width for each axis: sines, then cosines of `place * 10000**(-k / n)` for `k < n = width // 6`; what six
    does not divide stays 0. The published code draws noise instead, anew for student, teacher and every reload.
    """
    count = width // 6
    frequencies = 10000.0 ** (-torch.arange(count, dtype=torch.float64, device=like.device) / max(count, 1))
    parts = []
    for axis, side in enumerate(grid):
        angles = torch.arange(side, dtype=torch.float64, device=like.device)[:, None] * frequencies
        waves = torch.cat([angles.sin(), angles.cos()], dim=1) * (0.02 * math.sqrt(2))
        shape = [1, 1, 1, 2 * count]
        shape[axis] = side
        parts.append(waves.to(like.dtype).view(shape).expand(*grid, -1))
    return F.pad(torch.cat(parts, dim=-1), (0, width - 6 * count))


def _through(conv: nn.Module, x: Tensor) -> Tensor:
    """A convolution on maps whose channels come last."""
    return conv(x.movedim(-1, 1)).movedim(1, -1)


def _first_values(module: nn.Module) -> None:
    """Linears and tables of offsets from N(0, 0.02^2), zero biases; convolutions as they come."""
    first_values.dino(module)
    for part in module.modules():
        if isinstance(part, WindowAttention | CrossWindowAttention):
            nn.init.trunc_normal_(part.relative_position_bias_table, std=0.02)
