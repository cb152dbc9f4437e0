"""What stands between a U-shaped encoder and Alice's losses: a head for three kinds of features, and CASA after it."""

from __future__ import annotations

import copy

import torch.nn.functional as F
from torch import Tensor, nn

from tacit.core.draws import Draws
from tacit.nn.blocks import looks
from tacit.nn.heads import DINOHead, Prototypes


class AlignmentHead(DINOHead):
    """DINO's head for one vector per sample, and for the tokens of the encoder's and of the decoder's map (iBOT's way).

    Tokens are brought to the width of the vectors, share their MLP, and have prototypes of their own; all logits are
    cosines, in [-1, 1]. A teacher has but one set of prototypes: see `teacher`.

    Args:
        width: D, of the vectors.
        encoder_width, decoder_width: of the tokens.
        out: K.
        hidden, bottleneck, batch_norm: see `DINOHead`.
    """

    def __init__(
        self,
        width: int,
        encoder_width: int,
        decoder_width: int,
        out: int = 512,
        hidden: int = 2048,
        bottleneck: int = 256,
        batch_norm: bool = False,
    ) -> None:
        super().__init__(width, out, hidden, bottleneck, batch_norm=batch_norm)
        self.mlp3 = nn.Linear(encoder_width, width)
        self.mlp4 = nn.Linear(decoder_width, width)
        self.last_layer2: Prototypes | None = Prototypes(bottleneck, out, fixed_gain=True)

    def of_encoder(self, tokens: Tensor) -> Tensor:
        """Tokens of the deepest map `[B, L, D_e]` -> logits `[B, L, K]`."""
        return self._of_tokens(self.mlp3(tokens))

    def of_decoder(self, tokens: Tensor) -> Tensor:
        """Tokens of the first decoder map `[B, M, D_d]` -> logits `[B, M, K]`."""
        return self._of_tokens(self.mlp4(tokens))

    def _of_tokens(self, tokens: Tensor) -> Tensor:
        last = self.last_layer if self.last_layer2 is None else self.last_layer2
        rows = self.mlp(tokens.flatten(0, 1)).unflatten(0, tokens.shape[:2])
        return last(F.normalize(rows, dim=-1, eps=1e-12))

    def teacher(self) -> AlignmentHead:
        """A copy that never gets a gradient and has one set of prototypes for all.

        As published it starts with those of the student's tokens, and follows (`last_layer`, by name) those of its vectors.
        """
        made = copy.deepcopy(self).requires_grad_(False)
        if made.last_layer2 is not None:
            made.last_layer, made.last_layer2 = made.last_layer2, None
        return made


class CASA(nn.Module):
    """Conditional anatomical semantic alignment: one post-norm cross-attention layer on logits.

    `y = norm1(drop(proj(attend)) + query)`, `out = norm2(y + drop(fc2(relu(fc1(y)))))`. There are no positions: the order
    of the keys does not matter, and the order of the queries is that of the output.

    Args:
        width: K, the number of logits.
        heads, head_width: of the attention.
        hidden: width between fc1 and fc2.
        dropout: share of attention weights and of both branches that is silenced while draws are given.
    """

    def __init__(
        self, width: int = 512, heads: int = 8, head_width: int = 64, hidden: int = 2048, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        inner = heads * head_width
        self.q = nn.Linear(width, inner, bias=False)
        self.k = nn.Linear(width, inner, bias=False)
        self.v = nn.Linear(width, inner, bias=False)
        self.proj = nn.Linear(inner, width, bias=False)
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)

    def attention(self, query: Tensor, keys: Tensor) -> Tensor:
        """How much each query looks at each key: `[B, L, K]`, `[B, M, K]` -> `[B, heads, L, M]`, rows add up to 1."""
        return looks(self._heads(self.q(query)), self._heads(self.k(keys)))

    def forward(self, query: Tensor, keys: Tensor, draws: Draws | None = None) -> Tensor:
        """The queries `[B, L, K]` with what they found among the keys `[B, M, K]`: `[B, L, K]`.

        Args:
            query: logits of the student's encoder tokens, always.
            keys: logits of a decoder's tokens, the student's or the teacher's.
            draws: what dropout is drawn from, under other names for other keys; without it nothing is dropped.
        """
        weights = drop(self.attention(query, keys), self.dropout, draws, "attention")
        found = (weights @ self._heads(self.v(keys)).to(weights.dtype)).transpose(1, 2).flatten(2)  # [B, L, heads * d]
        y = self.norm1(drop(self.proj(found), self.dropout, draws, "proj") + query)
        return self.norm2(y + drop(self.fc2(F.relu(self.fc1(y))), self.dropout, draws, "mlp"))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, heads, T, d]


def drop(x: Tensor, rate: float, draws: Draws | None, name: str) -> Tensor:
    """Silence single numbers and strengthen the others, so that the mean stays.

    Args:
        x: `[V * B, ...]`, V views of each of the B samples of `draws`, view by view; each view is drawn for itself.
        rate: chance of silence, in `[0, 1)`.
        draws: without draws nothing is dropped.
        name: what the draw is called.
    """
    if draws is None or rate == 0.0:
        return x
    views = len(x) // len(draws.samples)
    alive = draws.uniform(name, views, *x.shape[1:]) >= rate  # [B, V, ...]
    return x * alive.transpose(0, 1).flatten(0, 1).to(x.dtype) / (1 - rate)
