"""Transformers over ragged sets of tokens that lie in space: their places are added before every block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tacit.core.draws import Draws
from tacit.core.errors import one_of
from tacit.nn import init as first_values
from tacit.nn.blocks import Attention, Mlp
from tacit.nn.encoder import bounded
from tacit.nn.points.norm import NORMS
from tacit.nn.trunk import rising, through

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
    """Self-attention with dropout on its weights.

    Args:
        width: D.
        heads: a divisor of the width.
        dropout: chance that a weight is dropped; without draws none is.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__(width, heads)
        self.dropout = dropout

    def forward(self, x: Tensor, seen: Tensor | None = None, draws: Draws | None = None) -> Tensor:
        """As `Attention.forward`."""
        if draws is None or not self.dropout:
            return super().forward(x, seen)
        return self.with_map(x, seen, draws)[0]

    def with_map(self, x: Tensor, seen: Tensor | None = None, draws: Draws | None = None) -> tuple[Tensor, Tensor]:
        """The same output, and the attention `[B, heads, T, T]` before dropout."""
        if draws is None or not self.dropout:
            return super().with_map(x, seen)
        q, k, v = self._heads(x)
        attention = self._looks(q, k, seen)
        alive = _pairs(draws, self.heads, x.shape[1]) >= self.dropout
        return self._merge((attention * alive.to(attention.dtype) / (1 - self.dropout)) @ v), attention


def _pairs(draws: Draws, heads: int, length: int) -> Tensor:
    """A number for every head and pair of tokens, `[B, heads, T, T]`: the same ones whatever T, since batches are padded."""
    token = torch.arange(length, device=draws.samples.device)
    query, key = token[:, None], token
    # Pair (q, k) has its number on shell max(q, k), which begins at the square of that.
    number = torch.where(query >= key, query.square() + key, key.square() + key + 1 + query)
    drawn = draws.uniform("weights", length * length, heads)
    return drawn[:, number].permute(0, 3, 1, 2)


class RaggedBlock(nn.Module):
    """`x += positions; x += attn(norm1(x)); x += mask mlp(norm2(x))`, with drop path per token.

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

    def forward(self, x: Tensor, draws: Draws | None, positions: Tensor, mask: Tensor, bias: Tensor) -> Tensor:
        """`[B, T, D]` twice, bool `[B, T]`, a bias that broadcasts to `[B, heads, T, T]` -> `[B, T, D]`."""
        x = x + positions
        return self._finish(x, self.attn(self.norm1(x, mask), bias, draws), mask, draws)

    def with_map(self, x: Tensor, draws: Draws | None, positions: Tensor, mask: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """As `forward`, and the attention `[B, heads, T, T]`."""
        x = x + positions
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
        self.depth, self.recompute = bounded(depth), False
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
        absent = torch.where(mask, 0.0, HIDDEN).to(x.dtype)[:, None, None]
        bias = absent if bias is None else bias + absent
        recompute = self.recompute and self.training
        x, seen, maps = through(self.blocks, x, draws, taps, attention, recompute, (positions, mask, bias))
        return Passed(x if self.norm is None else self.norm(x, mask), seen, maps)


class Positions(nn.Sequential):
    """`fc2(gelu(fc1(c)))` of centres `[..., 3]`: `[..., D]`.

    Args:
        width: D.
        hidden: of the first layer.
    """

    def __init__(self, width: int, hidden: int = 128) -> None:
        super().__init__(nn.Linear(3, hidden), nn.GELU(), nn.Linear(hidden, width))
