"""The pre-norm transformer block and what it is made of. Parameter names are timm's."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tacit.core.draws import Draws
from tacit.core.errors import TacitError

FUSED_FROM = 1024
"""Tokens up to which attention in bfloat16 is written out on a processor: there the fused kernel's gradient takes four to ten
times as long (`benchmarks/attention.py`). Beyond, its memory, quadratic in the tokens, counts for more."""


class Mlp(nn.Module):
    """`fc2(gelu(fc1(x)))` with the exact GELU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


def whole_heads(width: int, heads: int) -> int:
    """The number of heads, if it divides the width; else a `TacitError`."""
    if width % heads:
        raise TacitError(f"a width of {width} cannot be split into {heads} heads; choose a divisor of the width")
    return heads


def looks(q: Tensor, k: Tensor, seen: Tensor | None = None) -> Tensor:
    """How much each query looks at each key: `softmax(q k^T / sqrt(d))`, whose rows add up to 1.

    Args:
        q, k: `[..., T, d]`, `[..., K, d]`.
        seen: broadcasts to `[..., T, K]`. Bool: true where a query may look at a key; every query has to see one, and what is
            not seen is exactly 0. Else numbers that are added before the softmax.

    Returns:
        `[..., T, K]`.
    """
    logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    if seen is not None:
        logits = logits.masked_fill(~seen, -torch.inf) if seen.dtype is torch.bool else logits + seen
    return logits.softmax(dim=-1)


class Attention(nn.Module):
    """Self-attention; the rows of `qkv.weight [3 D, D]` are queries, keys, values, each split into heads one after another.

    Args:
        width: D.
        heads: how many; a divisor of the width.
        causal: let a token see itself and what stands before it, and nothing else; no other mask is taken then.
    """

    def __init__(self, width: int, heads: int, causal: bool = False) -> None:
        super().__init__()
        self.heads, self.causal = whole_heads(width, heads), causal
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        """`[B, T, D]` -> the same; `seen` broadcasts to `[B, heads, T, T]` and has two axes or more: see `looks`."""
        q, k, v = self._heads(x)
        if q.dtype is torch.bfloat16 and q.device.type == "cpu" and q.shape[2] <= FUSED_FROM:
            return self._merge(self._looks(q, k, seen) @ v)
        return self._merge(F.scaled_dot_product_attention(q, k, v, _like(q, seen), is_causal=self.causal))

    def with_map(self, x: Tensor, seen: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The same output, and the attention `[B, heads, T, T]`, whose rows add up to 1."""
        q, k, v = self._heads(x)
        attention = self._looks(q, k, seen)
        return self._merge(attention @ v), attention

    def _looks(self, q: Tensor, k: Tensor, seen: Tensor | None) -> Tensor:
        if self.causal:
            seen = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril()
        return looks(q, k, _like(q, seen))

    def _heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each [B, heads, T, d]
        return q, k, v

    def _merge(self, x: Tensor) -> Tensor:
        return self.proj(x.transpose(1, 2).flatten(2))


def _like(q: Tensor, seen: Tensor | None) -> Tensor | None:
    """A mask as it is, numbers to add in the precision of the queries."""
    return seen if seen is None or seen.dtype is torch.bool else seen.to(q.dtype)


class LayerScale(nn.Module):
    """A trained gain per dimension, small at first."""

    def __init__(self, width: int, start: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), start))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


def drop_path(x: Tensor, rate: float, draws: Draws | None, name: str) -> Tensor:
    """Silence a residual branch for some samples, and strengthen it for the others so that its mean stays.

    Args:
        x: `[V * B, ...]`: V crops of each of the B samples of `draws`, crop by crop; each crop is drawn for itself.
        rate: chance of silence, in `[0, 1)`.
        draws: without draws nothing is dropped.
        name: what the draw is called.
    """
    if draws is None or rate == 0.0:
        return x
    alive = draws.uniform(name, len(x) // len(draws.samples)) >= rate  # [B, V]
    gain = alive.T.flatten().to(x.dtype) / (1 - rate)
    return x * gain.reshape(-1, *[1] * (x.ndim - 1))


class Block(nn.Module):
    """`x += attn(norm1(x)); x += mlp(norm2(x))`, each branch with layer scale and drop path where asked for.

    Args:
        width: D.
        heads: how many; a divisor of the width.
        mlp_ratio: hidden width of the MLP over D.
        drop_path: chance that a branch is dropped, per sample.
        layer_scale: start value of the branches' gains; None for no gains.
        eps: of the layer norms.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        layer_scale: float | None = None,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.drop_path = drop_path
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = Attention(width, heads)
        self.ls1 = nn.Identity() if layer_scale is None else LayerScale(width, layer_scale)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = Mlp(width, int(width * mlp_ratio))
        self.ls2 = nn.Identity() if layer_scale is None else LayerScale(width, layer_scale)

    def forward(self, x: Tensor, draws: Draws | None = None, seen: Tensor | None = None) -> Tensor:
        """`[B, T, D]` -> the same; `seen` as in `Attention`."""
        return self._finish(x, self.attn(self.norm1(x), seen), draws)

    def with_map(self, x: Tensor, draws: Draws | None = None, seen: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As `forward`, and the attention `[B, heads, T, T]`."""
        branch, attention = self.attn.with_map(self.norm1(x), seen)
        return self._finish(x, branch, draws), attention

    def _finish(self, x: Tensor, branch: Tensor, draws: Draws | None) -> Tensor:
        x = x + drop_path(self.ls1(branch), self.drop_path, draws, "attn")
        return x + drop_path(self.ls2(self.mlp(self.norm2(x))), self.drop_path, draws, "mlp")
