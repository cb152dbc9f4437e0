"""Transformers over ragged sets of tokens that lie in space: their places are added before every block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tacit.core.draws import Draws
from tacit.core.errors import TacitError, one_of
from tacit.nn import init as first_values
from tacit.nn.blocks import Attention, Mlp
from tacit.nn.encoder import DEEPEST
from tacit.nn.points.norm import NORMS
from tacit.nn.trunk import rising

HIDDEN = -1e9
"""What is added to the logits of keys that are not there; a cloud without any key still gives finite numbers."""


class Passed(NamedTuple):
    """What came out of a trunk: tokens `[B, T, D]`, the taps that were asked for, and the last attention if it was."""

    tokens: Tensor
    taps: dict[str, Tensor]
    attention: Tensor | None


def put_back(tokens: Tensor, keep: Tensor, length: int) -> Tensor:
    """Tokens `[B, k, D]` at their places `keep [B, k]` (-1: nowhere) among zeros: `[B, length, D]`."""
    index = torch.where(keep < 0, length, keep)[..., None].expand_as(tokens)
    return tokens.new_zeros(len(tokens), length + 1, tokens.shape[2]).scatter(1, index, tokens)[:, :length]


def distance_bias(centres: Tensor, radius: float, heads: int) -> Tensor:
    """`-s_h |c_i - c_j|^2 / (8 r^2)`, added to the logits of head h: far tokens are seen less.

    The slope s is 1 for the first quarter of the heads, 1/4 for the second, 0 for the rest.

    Args:
        centres: `[B, T, 3]`.
        radius: r of the tokens' balls, in the same units.
        heads: how many.

    Returns:
        `[B, heads, T, T]`.
    """
    slope = torch.tensor([(1.0, 0.25, 0.0, 0.0)[4 * head // heads] for head in range(heads)], dtype=centres.dtype)
    gaps = (centres[:, :, None] - centres[:, None]).square().sum(-1)
    return -slope.to(centres.device)[:, None, None] * gaps[:, None] / (8 * radius**2)


def drop_tokens(x: Tensor, rate: float, draws: Draws | None, name: str) -> Tensor:
    """Drop path that is drawn for each token: `[B, T, D]`, some tokens silent, the others strengthened so that the mean stays.

    Without draws nothing is dropped. The first tokens of a cloud draw the same numbers however many places follow them.
    """
    if draws is None or rate == 0.0:
        return x
    alive = draws.uniform(name, x.shape[1]) >= rate
    return x * (alive.to(x.dtype) / (1 - rate))[..., None]


class RaggedAttention(Attention):
    """Self-attention with something added to its logits, and dropout on its weights.

    Args:
        width: D.
        heads: a divisor of the width.
        dropout: chance that a weight is dropped; without draws none is.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__(width, heads)
        self.dropout = dropout

    def forward(self, x: Tensor, bias: Tensor | None = None, draws: Draws | None = None) -> Tensor:
        """`[B, T, D]`, and a bias that broadcasts to `[B, heads, T, T]` -> `[B, T, D]`."""
        if draws is not None and self.dropout:
            return self.with_map(x, bias, draws)[0]
        q, k, v = self._heads(x)
        return self._merge(F.scaled_dot_product_attention(q, k, v, None if bias is None else bias.to(q.dtype)))

    def with_map(self, x: Tensor, bias: Tensor | None = None, draws: Draws | None = None) -> tuple[Tensor, Tensor]:
        """The same output, and the attention `[B, heads, T, T]` before dropout."""
        q, k, v = self._heads(x)
        logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        attention = (logits if bias is None else logits + bias.to(logits.dtype)).softmax(dim=-1)
        weights = attention
        if draws is not None and self.dropout:
            alive = _pairs(draws, self.heads, x.shape[1]) >= self.dropout
            weights = attention * alive.to(attention.dtype) / (1 - self.dropout)
        return self._merge(weights @ v), attention


def _pairs(draws: Draws, heads: int, length: int) -> Tensor:
    """A number for every head and pair of tokens, `[B, heads, T, T]`: the same ones whatever T, since batches are padded."""
    token = torch.arange(length, device=draws.samples.device)
    query, key = token[:, None], token
    # Pair (q, k) has its number on shell max(q, k), which begins at the square of that.
    number = torch.where(query >= key, query.square() + key, key.square() + key + 1 + query)
    drawn = draws.uniform("weights", length * length, heads)
    return drawn[:, number].permute(0, 3, 1, 2)


class RaggedBlock(nn.Module):
    """`x += attn(norm1(x)); x += mask mlp(norm2(x))`, with drop path per token.

    Args:
        width: D.
        heads: a divisor of the width.
        norm: `masked_batch`, one mean and deviation for all true tokens of the batch, or `token`, a layer norm of each.
        mlp_ratio: hidden width of the MLP over D.
        drop_path: chance that a branch is dropped, per token.
        dropout: chance that a weight of the attention is dropped.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        norm: str = "masked_batch",
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.drop_path = drop_path
        self.norm1 = NORMS[norm](width)
        self.attn = RaggedAttention(width, heads, dropout)
        self.norm2 = NORMS[norm](width)
        self.mlp = Mlp(width, int(width * mlp_ratio))

    def forward(self, x: Tensor, mask: Tensor, bias: Tensor | None = None, draws: Draws | None = None) -> Tensor:
        """`[B, T, D]`, bool `[B, T]`, a bias that broadcasts to `[B, heads, T, T]` -> `[B, T, D]`."""
        return self._finish(x, self.attn(self.norm1(x, mask), bias, draws), mask, draws)

    def with_map(
        self, x: Tensor, mask: Tensor, bias: Tensor | None = None, draws: Draws | None = None
    ) -> tuple[Tensor, Tensor]:
        """As `forward`, and the attention `[B, heads, T, T]`."""
        branch, attention = self.attn.with_map(self.norm1(x, mask), bias, draws)
        return self._finish(x, branch, mask, draws), attention

    def _finish(self, x: Tensor, branch: Tensor, mask: Tensor, draws: Draws | None) -> Tensor:
        x = x + drop_tokens(branch, self.drop_path, draws, "attn")
        return x + drop_tokens(self.mlp(self.norm2(x, mask)) * mask[..., None], self.drop_path, draws, "mlp")


class RaggedTransformer(nn.Module):
    """Blocks over the true tokens of every set; positions are added before each, so they accumulate (PoLAr-MAE).

    Args:
        width: D.
        depth: number of blocks.
        heads: a divisor of the width.
        norm: see `RaggedBlock`.
        last_norm: whether a norm follows the last block.
        mlp_ratio: hidden width of the MLPs over D.
        drop_path: chance that a branch is dropped in the last block; it grows linearly from 0 in the first.
        dropout: chance that a weight of the attention is dropped.

    Attributes:
        recompute: keep no activations of the blocks while training, but compute them anew in the backward pass.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        heads: int,
        norm: str = "masked_batch",
        last_norm: bool = False,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        one_of("norm", norm, tuple(NORMS))
        if not 0 < depth <= DEEPEST:
            raise TacitError(f"{depth} blocks were asked for; 1 to {DEEPEST:,} were expected")
        self.depth, self.recompute = depth, False
        self.blocks = nn.ModuleList(
            [RaggedBlock(width, heads, norm, mlp_ratio, rate, dropout) for rate in rising(drop_path, depth)]
        )
        self.norm = NORMS[norm](width) if last_norm else None
        first_values.dino(self)  # N(0, 0.02^2), cut, and zero biases

    def forward(
        self,
        x: Tensor,
        positions: Tensor,
        mask: Tensor,
        bias: Tensor | None = None,
        draws: Draws | None = None,
        taps: Sequence[str] = (),
        attention: bool = False,
    ) -> Passed:
        """Send tokens through the blocks.

        Args:
            x: `[B, T, D]`.
            positions: `[B, T, D]`.
            mask: bool `[B, T]`, true tokens: nobody looks at the others or counts them, and what they become means nothing.
            bias: added to the logits of all blocks, `[B, heads, T, T]`.
            draws: what drop path and dropout are drawn from; without it nothing is dropped.
            taps: `blocks.i`, outputs of blocks to return.
            attention: also return the last block's attention, `[B, heads, T, T]`.
        """
        for tap in taps:
            one_of("tap", tap, [f"blocks.{index}" for index in range(self.depth)])
        absent = torch.where(mask, 0.0, HIDDEN).to(x.dtype)[:, None, None]
        bias = absent if bias is None else bias + absent
        seen, maps = {}, None
        for index, block in enumerate(self.blocks):
            inner = draws.within(f"blocks.{index}") if draws else None
            x = x + positions
            if attention and index == self.depth - 1:
                x, maps = block.with_map(x, mask, bias, inner)  # pyright: ignore[reportCallIssue]
            elif self.recompute and self.training:
                x = checkpoint(block, x, mask, bias, inner, use_reentrant=False, preserve_rng_state=False)
            else:
                x = block(x, mask, bias, inner)
            if (name := f"blocks.{index}") in taps:
                seen[name] = x
        return Passed(x if self.norm is None else self.norm(x, mask), seen, maps)


class Positions(nn.Sequential):
    """`fc2(gelu(fc1(c)))` of centres `[..., 3]`: `[..., D]`.

    Args:
        width: D.
        hidden: of the first layer.
    """

    def __init__(self, width: int, hidden: int = 128) -> None:
        super().__init__(nn.Linear(3, hidden), nn.GELU(), nn.Linear(hidden, width))
