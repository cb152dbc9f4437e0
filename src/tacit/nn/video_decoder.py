"""The decoder of masked video: what was seen, and one learned token for all that was not."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tacit.nn.blocks import Block
from tacit.nn.spacetime import SpaceTimePositions, first_values


class VideoDecoder(nn.Module):
    """A few blocks over all places of a clip, with learned positions and a class token of their own (MAE-ST).

    The class token starts at 0, the hidden token as N(0, 0.02^2); see `spacetime.first_values` for the rest.

    Args:
        width_in: D, of the encoder.
        width, depth, heads: of the decoder.
        grid: time slots, rows and columns.
        out: numbers to predict for each place.
        mlp_ratio: hidden width of the MLPs over the width.
        class_token: whether there is one.
        joint: one table of positions over all places; see `SpaceTimePositions`.
        eps: of the layer norms.
    """

    def __init__(
        self,
        width_in: int,
        width: int,
        depth: int,
        heads: int,
        grid: Sequence[int],
        out: int,
        mlp_ratio: float = 4.0,
        class_token: bool = True,
        joint: bool = False,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.grid = tuple(grid)
        self.embed = nn.Linear(width_in, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width)) if class_token else None
        self.pos_embed = SpaceTimePositions(width, grid, class_token, joint)
        self.blocks = nn.ModuleList([Block(width, heads, mlp_ratio, eps=eps) for _ in range(depth)])
        self.norm = nn.LayerNorm(width, eps=eps)
        self.pred = nn.Linear(width, out)
        first_values(self)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, latent: Tensor, restore: Tensor) -> Tensor:
        """Latents `[B, k, D]` of what was seen, and where each place lies once the hidden ones follow -> `[B, L, out]`."""
        x = self.embed(latent)
        hidden = self.mask_token.to(x.dtype).expand(len(x), restore.shape[1] - x.shape[1], -1)
        x = torch.cat([x, hidden], dim=1)
        x = x.gather(1, restore[..., None].expand(-1, -1, x.shape[2])) + self.pos_embed(self.grid)  # in the clip's order
        x = self.pos_embed.led(self.cls_token, x)
        for block in self.blocks:
            x = block(x)
        return self.pred(self.norm(x))[:, x.shape[1] - restore.shape[1] :]
