"""CLIP's image towers (Radford et al. 2021): a transformer with a norm in front, a residual network that pools by attention.

Both end before or in the space that images and texts share; `projection` is the linear map into it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tacit.core.errors import TacitError, one_of
from tacit.nn.blocks import Block, Mlp, whole_heads
from tacit.nn.convnet import ConvNet
from tacit.nn.norms import BatchNorm
from tacit.nn.positions import resample
from tacit.nn.resnet import Bottleneck, start_as_shortcuts
from tacit.nn.vit import VisionTransformer


def projection(width: int, out: int) -> nn.Linear:
    """The map `[B, D]` -> `[B, out]` into the shared space: no bias, N(0, 1 / D) at first."""
    linear = nn.Linear(width, out, bias=False)
    nn.init.normal_(linear.weight, std=width**-0.5)
    return linear


class QuickMlp(Mlp):
    """`fc2(h sigmoid(1.702 h))` with `h = fc1(x)`: the GELU of OpenAI's weights."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.fc1(x)
        return self.fc2(h * torch.sigmoid(1.702 * h))


def quicken(blocks: nn.ModuleList) -> None:
    """Give transformer blocks the GELU of OpenAI's weights; what they know stays."""
    for block in blocks:
        assert isinstance(block, Block)
        mlp = QuickMlp(block.mlp.fc1.in_features, block.mlp.fc1.out_features)
        mlp.load_state_dict(block.mlp.state_dict())
        block.mlp = mlp


def patch_dropout(scores: Tensor, rate: float) -> Tensor:
    """The patches that an image keeps: those with the largest scores.

    Args:
        scores: `[B, L]`, N(0, 1) in the published code.
        rate: share that is dropped; `max(1, int(L * (1 - rate)))` stay.

    Returns:
        int64 `[B, k]`, for `Encoder.forward`; dropping before positions are added or after is the same.
    """
    return scores.topk(max(1, int(scores.shape[1] * (1 - rate))), dim=1).indices


class ClipVisionTransformer(VisionTransformer):
    """CLIP's transformer: no bias in the patch embedding, learned positions, a norm before the first block.

    `pooled` is what lies before the projection: the class token after the last norm.

    Args:
        channels, size, patch, width, depth, heads, mlp_ratio, pool, drop_path: see `VisionTransformer`.
        quick_gelu: whether the GELU is that of OpenAI's weights.
        eps: of the layer norms.
    """

    def __init__(
        self,
        channels: int,
        size: Sequence[int],
        patch: int,
        width: int,
        depth: int,
        heads: int,
        mlp_ratio: float = 4.0,
        pool: str = "cls",
        drop_path: float = 0.0,
        quick_gelu: bool = False,
        eps: float = 1e-5,
    ) -> None:
        shape = (channels, size, patch, width, depth, heads, mlp_ratio)
        super().__init__(*shape, positions="learned", pool=pool, drop_path=drop_path, eps=eps)
        self.offset = 0.0  # positions are resampled by size
        self.patch_embed.proj.register_parameter("bias", None)
        self.norm_pre = nn.LayerNorm(width, eps=eps)
        if quick_gelu:
            quicken(self.blocks)
        self._first_values()

    def _first_values(self) -> None:
        """Class token and positions from N(0, 1 / D), q, k and v together Xavier-uniform; the rest as the framework does."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                module.reset_parameters()
            if name.endswith("attn.qkv"):
                nn.init.xavier_uniform_(module.get_parameter("weight"))
            if name.endswith(("attn.qkv", "attn.proj")):
                nn.init.zeros_(module.get_parameter("bias"))
        for token in self.parameters(recurse=False):
            nn.init.normal_(token, std=self.width**-0.5)

    def _place(self, patches: Tensor, grid: Sequence[int], keep: Tensor | None) -> Tensor:
        return self.norm_pre(super()._place(patches, grid, keep))


class SmoothBottleneck(Bottleneck):
    """A bottleneck without strided convolutions: average pooling after the second one, and first in the shortcut, instead."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__(inputs, width, stride=1)
        self.pool = nn.AvgPool2d(stride)
        if stride > 1 and isinstance(self.downsample, nn.Identity):
            conv = nn.Conv2d(inputs, 4 * width, 1, bias=False)
            self.downsample = nn.Sequential(conv, BatchNorm(4 * width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(x)).relu()
        y = self.pool(self.bn2(self.conv2(y)).relu())
        return (self.bn3(self.conv3(y)) + self.downsample(self.pool(x))).relu()


class AttentionPool(nn.Module):
    """The mean of all cells, as the only query, gathers what it needs from the cells and itself.

    Args:
        width: C, channels of the map.
        heads: a divisor of C.
        out: length of the pooled vector.
        grid: rows and columns of the map that positions are made for; others are served by resampled positions.
    """

    def __init__(self, width: int, heads: int, out: int, grid: Sequence[int]) -> None:
        super().__init__()
        self.heads, self.table_grid = whole_heads(width, heads), tuple(grid)
        self.positional_embedding = nn.Parameter(torch.empty(1 + grid[0] * grid[1], width))
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.c_proj = nn.Linear(width, out)
        nn.init.normal_(self.positional_embedding, std=width**-0.5)
        for linear in (self.q_proj, self.k_proj, self.v_proj, self.c_proj):
            nn.init.normal_(linear.weight, std=width**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, h, w]` -> `[B, out]`."""
        cells = x.flatten(2).transpose(1, 2)
        tokens = torch.cat([cells.mean(dim=1, keepdim=True), cells], dim=1)  # [B, 1 + h w, C]
        tokens = tokens + resample(self.positional_embedding[None], self.table_grid, x.shape[2:])
        q, k, v = self.q_proj(tokens[:, :1]), self.k_proj(tokens), self.v_proj(tokens)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (q, k, v))  # each [B, heads, T, d]
        return self.c_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(1))


class ClipResNet(ConvNet):
    """CLIP's residual network: a stem of three convolutions, bottlenecks that pool instead of striding, attention pooling.

    The pooled vector lies in the shared space already: the attention pool's last map is the projection.

    Args:
        channels: of the images.
        size: height and width of the images that the pool's positions are made for.
        blocks: how many each stage has.
        width: of the first stage; the last map has 32 times as many channels.
        heads: of the attention pool; None for one per 64 channels.
        out: length of the pooled vector.
        stem: `imagenet` ends in a 2x2 average pool, `small` does not.
    """

    def __init__(
        self,
        channels: int,
        size: Sequence[int],
        blocks: Sequence[int] = (3, 4, 6, 3),
        width: int = 64,
        heads: int | None = None,
        out: int = 1024,
        stem: str = "imagenet",
    ) -> None:
        super().__init__()
        one_of("stem", stem, ("imagenet", "small"))
        self.width, self.counts = out, {}
        self.stem_pool = 2 if stem == "imagenet" else 1
        for number, (inputs, outputs) in enumerate([(channels, width // 2), (width // 2, width // 2), (width // 2, width)], 1):
            stride = 2 if number == 1 else 1
            self.add_module(f"conv{number}", nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False))
            self.add_module(f"bn{number}", BatchNorm(outputs))
        widths = [width << stage for stage in range(len(blocks))]
        inputs = self.add_stages(SmoothBottleneck, width, blocks, widths, SmoothBottleneck.expansion)
        start_as_shortcuts(self)
        grid = self.grid(size)
        if not all(grid):
            raise TacitError(
                f"images of {tuple(size)} pixels shrink to nothing in this network; enlarge them or use stem=small"
            )
        self.attnpool = AttentionPool(inputs, heads or max(1, inputs // 64), out, grid)

    def first_map(self, x: Tensor) -> Tensor:
        """What the stem makes of images, for the first stage: `[B, C, H, W]` -> `[B, width, h, w]`."""
        for number in (1, 2, 3):
            x = self.get_submodule(f"bn{number}")(self.get_submodule(f"conv{number}")(x)).relu()
        return F.avg_pool2d(x, self.stem_pool)

    def pooled(self, last: Tensor, cells: Tensor) -> Tensor:  # noqa: ARG002 - it reads the map
        return self.attnpool(last)

    def grid(self, extent: Sequence[int]) -> tuple[int, ...]:
        """The first convolution rounds up, pools round down."""
        pools = self.stem_pool * 2 ** (len(self.counts) - 1)
        return tuple(-(-side // 2) // pools for side in extent)

    def level(self, name: str) -> int:
        return self.depth + 1 if name.startswith("attnpool.") else super().level(name)
