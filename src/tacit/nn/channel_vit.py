"""A transformer for images of any number of channels: every patch of every channel is a token of its own (ChAda-ViT).

One projection serves all channels. A token knows its place, by an embedding that all channels share, and its channel, by one
that all patches share; what pads an image to the batch's largest number of channels is attended to by nobody.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tacit.core.draws import Draws
from tacit.core.errors import TacitError, one_of
from tacit.nn import init as first_values
from tacit.nn.encoder import Encoded, bounded
from tacit.nn.masked_blocks import BLOCKS
from tacit.nn.patches import PatchEmbed
from tacit.nn.positions import resample
from tacit.nn.trunk import Transformer, rising
from tacit.nn.vit import VisionTransformer


class Shape(NamedTuple):
    width: int
    depth: int
    heads: int
    hidden: int


VARIANTS = {"channel-vit-micro": Shape(96, 4, 3, 192), "channel-vit-tiny": Shape(192, 12, 2, 2048)}
"""The published size is called "moyen" by its authors: a ViT-Tiny's width, a hidden layer as wide as torch's default."""


def visible(there: Tensor, spot: Tensor | None) -> Tensor:
    """Which token may look at which, the class token first.

    Args:
        there: bool `[B, L]`, which tokens belong to a true channel.
        spot: int64 `[B or 1, L]`, each token's place in its channel, if it may only look at its own place in all channels.
            The class token is seen by all and sees all.

    Returns:
        Bool, `[B, 1, 1, 1 + L]` or `[B, 1, 1 + L, 1 + L]`.
    """
    seen = F.pad(there, (1, 0), value=True)[:, None, None]
    if spot is None:
        return seen
    return seen & F.pad(spot[:, :, None] == spot[:, None, :], (1, 0, 1, 0), value=True)[:, None]


def of_true_channels(tokens: Tensor, there: Tensor) -> Tensor:
    """The tokens of true channels one after another, by image, channel, patch.

    Args:
        tokens: `[B, C * N, D]`.
        there: bool `[B, C]`, which channels are true; T of them.

    Returns:
        `[T * N, D]`.
    """
    return tokens.unflatten(1, (there.shape[1], -1))[there].flatten(0, 1)


def split(x: Tensor) -> tuple[Tensor, Tensor]:
    """A view `[B, n + 1, C, H, W]` as values `[B, n, C, H, W]` and which of its channels are true, bool `[B, C]`."""
    return x[:, :-1], x[:, -1, :, 0, 0] > 0


class ChannelViT(Transformer):
    """Tokens of single channels, learned positions and channel slots, post-norm blocks, a last layer norm.

    Images are `[B, n + 1, C, H, W]`: the values, n to a pixel of a channel, usually one, and last the presence, 1 in true
    channels and 0 in those that pad an image to the largest of its batch (more of them change nothing and cost time). Places
    are counted by channel, then row by row: `channel * N + patch`.

    Args:
        channels: n.
        size: Cmax, height and width. Images with more channels are refused; other heights and widths are served by resampled
            positions.
        patch: side of a patch in pixels.
        width, depth, heads, hidden: D, the number of blocks, attention heads, the hidden width of the MLPs.
        block: `official` (post-norm, ReLU, first norm used twice) or `prenorm` (the usual one).
        attend: `all`, or `channels`: patches look only at the same place in all channels, and at the class token.
        channel_token: whether a token knows its channel's slot; without it the order of channels means nothing.
        pool: `cls`, the class token, or `mean`, that of the true channels' tokens; both after the last norm.
        drop_path: chance that a branch is dropped in the last block; it grows linearly from 0 in the first.

    Attributes:
        pos_embed: `[1, 1 + N, D]`, the class token's row first; the same for all channels.
        channel_token: `[1, Cmax, 1, D]`, the same for all patches; the class token has none.
    """

    def __init__(
        self,
        channels: int,
        size: Sequence[int],
        patch: int,
        width: int,
        depth: int,
        heads: int,
        hidden: int = 2048,
        block: str = "official",
        attend: str = "all",
        channel_token: bool = True,
        pool: str = "cls",
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        one_of("block", block, BLOCKS)
        one_of("attend", attend, ("all", "channels"))
        one_of("pool", pool, ("cls", "mean"))
        self.slots, self.width, self.depth, self.attend, self.pool = size[0], width, bounded(depth), attend, pool
        self.patch_embed = PatchEmbed(channels, width, patch)
        self.table_grid = self.patch_embed.grid(size[-2:])
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.channel_token = nn.Parameter(torch.zeros(1, self.slots, 1, width)) if channel_token else None
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + math.prod(self.table_grid), width))
        self.blocks = nn.ModuleList([BLOCKS[block](width, heads, hidden, rate) for rate in rising(drop_path, depth)])
        self.norm = nn.LayerNorm(width, eps=1e-6)
        first_values.dino(self)
        for name, weight in self.named_parameters():
            if block == "official" and name.endswith("qkv.weight"):
                nn.init.xavier_uniform_(weight)

    def forward(
        self,
        x: Tensor,
        keep: Tensor | None = None,
        draws: Draws | None = None,
        taps: Sequence[str] = (),
        attention: bool = False,
    ) -> Encoded:
        """See `Encoder.forward`; `x [B, n + 1, C, H, W]`. A tap `blocks.i` is the output of a block, `[B, 1 + L, D]`, no norm.

        In place of the tokens of absent channels come the mean of the image's true ones, so that means over places are right.
        """
        channels, *grid = self._whole(x.shape[2:])
        spots = math.prod(grid)
        x, true = split(x)
        places = torch.arange(channels * spots, device=x.device).expand(x.shape[0], -1) if keep is None else keep
        there = true.gather(1, places // spots)
        x = self.tokenize(x, keep, there)
        seen = visible(there, places % spots if self.attend == "channels" else None)
        x, taken, maps = self.passed(x, draws, taps, attention, seen)
        prefix, tokens = x[:, :1], x[:, 1:]
        mean = _mean(tokens, there)
        tokens = tokens.where(there[..., None], mean[:, None])
        return Encoded(prefix[:, 0] if self.pool == "cls" else mean, tokens, prefix, taken, maps)

    def tokenize(self, x: Tensor, keep: Tensor | None, there: Tensor) -> Tensor:
        """Class token and patches, with positions and channel slots.

        Args:
            x: the values, `[B, n, C, H, W]`.
            keep: int64 `[B, k]`, the places to embed; None for all.
            there: bool `[B, C * N]` or `[B, k]`, which of them belong to true channels: the others are nothing but position
                and slot.

        Returns:
            `[B, 1 + C * N, D]` or `[B, 1 + k, D]`.

        Raises:
            TacitError: more channels than slots, or images smaller than a patch.
        """
        channels, *grid = self._whole(x.shape[2:])
        # Channels one below another make one tall image, whose patches, row by row, come channel by channel.
        patches = self.patch_embed(x[..., : grid[0] * self.patch_embed.patch, :].flatten(2, 3), keep)
        patches = patches.where(there[..., None], 0)
        table = resample(self.pos_embed, self.table_grid, grid, offset=0.1)
        known = table[:, None, 1:].expand(-1, channels, -1, -1)  # [1, C, N, D]
        if self.channel_token is not None:
            known = known + self.channel_token[:, :channels]
        known = known.flatten(1, 2)
        patches = patches + (known if keep is None else known[0][keep])
        return torch.cat([(self.cls_token + table[:, :1]).expand(x.shape[0], -1, -1), patches], dim=1)

    def _whole(self, extent: Sequence[int]) -> tuple[int, ...]:
        if extent[0] > self.slots:
            raise TacitError(f"images of {extent[0]} channels, but the encoder was made for at most {self.slots}")
        return extent[0], *self.patch_embed.whole(extent[1:])

    def grid(self, extent: Sequence[int]) -> tuple[int, ...]:
        """Channels, rows and columns of `(C, H, W)`; rows and columns of `(H, W)`."""
        return (*extent[:-2], *self.patch_embed.grid(extent[-2:]))


def _mean(tokens: Tensor, there: Tensor) -> Tensor:
    """The mean of the tokens `[B, L, D]` of true channels."""
    weight = there.to(tokens.dtype)[..., None]
    return (tokens * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)


class OneChannelViT(VisionTransformer):
    """The baseline: a plain transformer over each channel by itself; an image's vector is the C channels' one after another.

    Images are `[B, n + 1, C, H, W]` as for `ChannelViT`; what stands for absent channels is zero.

    Args:
        channels: n.
        size: C, height and width.
        patch, width, depth, heads, options: see `VisionTransformer`.
    """

    def __init__(
        self, channels: int, size: Sequence[int], patch: int, width: int, depth: int, heads: int, **options: Any
    ) -> None:
        super().__init__(channels, size[-2:], patch, width, depth, heads, **options)
        self.slots, self.width = size[0], size[0] * width

    def forward(
        self,
        x: Tensor,
        keep: Tensor | None = None,
        draws: Draws | None = None,
        taps: Sequence[str] = (),
        attention: bool = False,
    ) -> Encoded:
        """`pooled [B, C * D]`; tokens, prefix and taps of one channel after another; attention with C times the heads."""
        if keep is not None:
            raise TacitError("an encoder of single channels looks at all places")
        if x.shape[2] > self.slots:
            raise TacitError(f"images of {x.shape[2]} channels, but the encoder joins the features of {self.slots}")
        x, there = split(F.pad(x, (0, 0, 0, 0, 0, self.slots - x.shape[2])))
        # Channel by channel, as drop path expects the crops of a batch to come.
        seen = super().forward(x.movedim(2, 0).flatten(0, 1), None, draws, taps, attention)

        def joined(each: Tensor) -> Tensor:
            """`[C * B, n, ...]` -> `[B, C * n, ...]`."""
            parts = each.unflatten(0, (self.slots, -1)).transpose(0, 1)
            return parts.where(there.view(*there.shape, *[1] * (parts.ndim - 2)), 0).flatten(1, 2)

        prefix, maps = seen.prefix, seen.attention
        return Encoded(
            joined(seen.pooled),
            joined(seen.tokens),
            None if prefix is None else joined(prefix),
            {name: joined(tap) for name, tap in seen.taps.items()},
            None if maps is None else joined(maps),
        )

    def grid(self, extent: Sequence[int]) -> tuple[int, ...]:
        """Channels, rows and columns of `(C, H, W)`; rows and columns of `(H, W)`."""
        return (*extent[:-2], *super().grid(extent[-2:]))
