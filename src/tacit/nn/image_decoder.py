"""The decoder of masked images: what was seen, and one learned token for all that was not."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tacit.nn.blocks import Block
from tacit.nn.init import mae as first_values
from tacit.nn.positions import sincos


class ImageDecoder(nn.Module):
    """A few blocks over all places of an image, with fixed positions; the encoder's class token goes on in it (MAE).

    Args:
        width_in: D, of the encoder.
        width, depth, heads: of the decoder.
        grid: rows and columns.
        out: numbers to predict for each place.
    """

    def __init__(self, width_in: int, width: int, depth: int, heads: int, grid: tuple[int, ...], out: int) -> None:
        super().__init__()
        self.embed = nn.Linear(width_in, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.register_buffer("pos_embed", torch.cat([torch.zeros(1, width), sincos(width, grid)])[None], persistent=False)
        self.pos_embed: Tensor
        self.blocks = nn.ModuleList([Block(width, heads) for _ in range(depth)])
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.pred = nn.Linear(width, out)
        first_values(self)

    def forward(self, latent: Tensor, restore: Tensor) -> Tensor:
        """Latents `[B, 1 + k, D]`, class token first, and where each place lies among them -> `[B, L, out]`."""
        x = self.embed(latent)
        hidden = self.mask_token.to(x.dtype).expand(len(x), restore.shape[1] - x.shape[1] + 1, -1)
        places = torch.cat([x[:, 1:], hidden], dim=1)
        places = places.gather(1, restore[..., None].expand(-1, -1, places.shape[2]))  # back to image order
        x = torch.cat([x[:, :1], places], dim=1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.pred(self.norm(x))[:, 1:]
