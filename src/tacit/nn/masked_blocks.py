"""Transformer blocks in which some tokens are seen by nobody, before or after which the norms stand. Names are timm's."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tacit.core.draws import Draws
from tacit.nn.blocks import FUSED_FROM, Attention, Block, Mlp, drop_path


class MaskedAttention(Attention):
    """Self-attention in which some keys are not seen.

    `seen` is bool, of two axes or more, and broadcasts to `[B, heads, T, T]`: true where a query (row) may look at a key
    (column). Every query has to see one.
    """

    def forward(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        if seen is None:
            return super().forward(x)
        q, k, v = self._heads(x)
        if q.dtype is torch.bfloat16 and q.device.type == "cpu" and q.shape[2] <= FUSED_FROM:
            return self._merge(_weights(q, k, seen) @ v)
        return self._merge(F.scaled_dot_product_attention(q, k, v, attn_mask=seen))

    def with_map(self, x: Tensor, seen: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The same output, and the attention `[B, heads, T, T]`: rows add up to 1, what is not seen is exactly 0."""
        if seen is None:
            return super().with_map(x)
        q, k, v = self._heads(x)
        attention = _weights(q, k, seen)
        return self._merge(attention @ v), attention


def _weights(q: Tensor, k: Tensor, seen: Tensor) -> Tensor:
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    return scores.masked_fill(~seen, -torch.inf).softmax(dim=-1)


class ReluMlp(Mlp):
    """`fc2(relu(fc1(x)))`."""

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.relu(self.fc1(x)))


class PreNormBlock(Block):
    """The usual block, `x += attn(norm1(x)); x += mlp(norm2(x))`, with a mask over the keys.

    Args:
        width: D.
        heads: how many; a divisor of the width.
        hidden: width of the MLP's hidden layer.
        drop_path: chance that a branch is dropped, per sample.
        eps: of the layer norms.
    """

    feedforward: type[Mlp] = Mlp

    def __init__(self, width: int, heads: int, hidden: int, drop_path: float = 0.0, eps: float = 1e-6) -> None:
        super().__init__(width, heads, 1.0, drop_path, eps=eps)
        self.attn = MaskedAttention(width, heads)
        self.mlp = self.feedforward(width, hidden)

    def forward(self, x: Tensor, draws: Draws | None = None, seen: Tensor | None = None) -> Tensor:
        """`[B, T, D]` -> the same; `seen` as in `MaskedAttention`."""
        return self._finish(x, self.attn(self.norm1(x), seen), draws)

    def with_map(self, x: Tensor, draws: Draws | None = None, seen: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As `forward`, and the attention `[B, heads, T, T]`."""
        branch, attention = self.attn.with_map(self.norm1(x), seen)
        return self._finish(x, branch, draws), attention


class PostNormBlock(PreNormBlock):
    """The official block: `x = norm1(x + attn(norm1(x))); x = norm2(x + mlp(x))`, ReLU; one `norm1` does both."""

    feedforward = ReluMlp

    def __init__(self, width: int, heads: int, hidden: int, drop_path: float = 0.0, eps: float = 1e-5) -> None:
        super().__init__(width, heads, hidden, drop_path, eps)

    def _finish(self, x: Tensor, branch: Tensor, draws: Draws | None) -> Tensor:
        x = self.norm1(x + drop_path(branch, self.drop_path, draws, "attn"))
        return self.norm2(x + drop_path(self.mlp(x), self.drop_path, draws, "mlp"))


BLOCKS: dict[str, type[PreNormBlock]] = {"official": PostNormBlock, "prenorm": PreNormBlock}
