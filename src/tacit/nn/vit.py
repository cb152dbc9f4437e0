"""Vision transformers for any patch, grid and set of visible patches. Parameter names are timm's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tacit.core.draws import Draws
from tacit.core.errors import one_of
from tacit.nn import init as first_values
from tacit.nn.blocks import Block
from tacit.nn.encoder import Encoded, bounded
from tacit.nn.patches import PatchEmbed
from tacit.nn.positions import resample, sincos
from tacit.nn.trunk import Transformer, rising


class Shape(NamedTuple):
    width: int
    depth: int
    heads: int


VARIANTS = {
    "vit-micro": Shape(96, 4, 4),
    "vit-mini": Shape(128, 6, 4),
    "vit-tiny": Shape(192, 12, 3),
    "vit-small": Shape(384, 12, 6),
    "vit-base": Shape(768, 12, 12),
    "vit-large": Shape(1024, 24, 16),
    "vit-huge": Shape(1280, 32, 16),
}

POSITIONS = ("sincos", "sincos-row", "learned")


class VisionTransformer(Transformer):
    """Patch embedding, positions, pre-norm blocks, a last layer norm.

    Args:
        channels: of the images.
        size: height and width of the images that positions are made for; others are served by resampled positions.
        patch: side of a patch in pixels.
        width, depth, heads: D, the number of blocks, attention heads.
        mlp_ratio: hidden width of the MLPs over D.
        positions: `sincos` (fixed, column first, as in MAE), `sincos-row` (fixed, row first, as in MoCo v3), `learned`.
            Fixed tables are resampled by size, learned ones as in DINO (see `positions.resample`).
        class_token: whether there is one.
        registers: further tokens that belong to no place.
        pool: what a sample's vector is: `cls`, the class token, or `mean`, that of the patch tokens; both after the last norm.
        drop_path: chance that a branch is dropped in the last block; it grows linearly from 0 in the first.
        layer_scale: start value of the branches' gains; None for no gains.
        eps: of the layer norms.
        init: whose first values: `mae`, `moco` or `dino`.

    Attributes:
        pos_embed: `[1, 1 + L, D]` (`[1, L, D]` without class token); a parameter if learned, else a buffer.
            Registers have no rows in it.
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
        positions: str = "sincos",
        class_token: bool = True,
        registers: int = 0,
        pool: str = "cls",
        drop_path: float = 0.0,
        layer_scale: float | None = None,
        eps: float = 1e-6,
        init: str = "mae",
    ) -> None:
        super().__init__()
        one_of("positions", positions, POSITIONS)
        one_of("init", init, first_values.TRANSFORMERS)
        one_of("pool", pool, ("cls", "mean") if class_token else ("mean",))
        self.width, self.depth, self.pool = width, bounded(depth), pool
        self.patch_embed = PatchEmbed(channels, width, patch)
        self.table_grid = self.grid(size)
        self.offset = 0.1 if positions == "learned" else 0.0
        rows = int(class_token)
        self.prefix = rows + registers
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width)) if class_token else None
        self.reg_token = nn.Parameter(torch.zeros(1, registers, width)) if registers else None
        if positions == "learned":
            self.pos_embed = nn.Parameter(torch.zeros(1, rows + self.table_grid[0] * self.table_grid[1], width))
        else:
            places = sincos(width, self.table_grid, first="column" if positions == "sincos" else "row")
            self.register_buffer("pos_embed", torch.cat([torch.zeros(rows, width), places])[None])
        self.blocks = nn.ModuleList(
            [Block(width, heads, mlp_ratio, rate, layer_scale, eps) for rate in rising(drop_path, depth)]
        )
        self.norm = nn.LayerNorm(width, eps=eps)
        first_values.TRANSFORMERS[init](self)

    def forward(
        self,
        x: Tensor,
        keep: Tensor | None = None,
        draws: Draws | None = None,
        taps: Sequence[str] = (),
        attention: bool = False,
    ) -> Encoded:
        """See `Encoder.forward`. A tap `blocks.i` is the output of a block, `[B, P + L, D]`, prefix tokens first, no norm."""
        grid = self.patch_embed.whole(x.shape[2:])
        return self.trunk(self.patch_embed(x, keep), grid, keep, draws, taps, attention)

    def trunk(
        self,
        patches: Tensor,
        grid: Sequence[int],
        keep: Tensor | None = None,
        draws: Draws | None = None,
        taps: Sequence[str] = (),
        attention: bool = False,
    ) -> Encoded:
        """What follows the patch embedding.

        Args:
            patches: `[B, L, D]`, or `[B, k, D]` for the places `keep`: embedded, without positions.
            grid: rows and columns of the whole image.
            keep, draws, taps, attention: see `Encoder.forward`.
        """
        return self.read(self._place(patches, grid, keep), draws, taps, attention)

    def _place(self, patches: Tensor, grid: Sequence[int], keep: Tensor | None) -> Tensor:
        """Add positions, then put class token and registers in front: `[B, P + k, D]`."""
        table = resample(self.pos_embed, self.table_grid, grid, self.offset)
        places = table[:, table.shape[1] - grid[0] * grid[1] :]
        x = patches + (places if keep is None else places[0][keep])
        front = []
        if self.cls_token is not None:
            front.append(self.cls_token + table[:, :1])
        if self.reg_token is not None:
            front.append(self.reg_token)
        # `len(x)` would fix the batch size of an exported encoder.
        return torch.cat([*(token.expand(x.shape[0], -1, -1) for token in front), x], dim=1)

    def grid(self, extent: Sequence[int]) -> tuple[int, ...]:
        return self.patch_embed.grid(extent)
