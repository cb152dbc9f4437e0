"""The text trunk of CLIP (Radford et al. 2021): a transformer that reads from left to right. Block names are timm's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tacit.core.draws import Draws
from tacit.core.errors import TacitError, one_of
from tacit.nn.blocks import Attention, Block
from tacit.nn.encoder import Encoded, bounded
from tacit.nn.towers import projection, quicken
from tacit.nn.trunk import Transformer
from tacit.nn.vit import Shape

VARIANTS = {
    "text-micro": Shape(64, 2, 4),
    "text-mini": Shape(128, 2, 4),
    "text-small": Shape(256, 6, 4),
    "text-medium": Shape(512, 6, 8),
    "text-base": Shape(512, 12, 8),
}


class TextTransformer(Transformer):
    """Token embedding, learned positions, causal pre-norm blocks, a last layer norm; read at the end token.

    Since no token sees a later one, what follows the end token changes nothing: padding needs no mask, and whoever cuts it off
    (`tacit.data.text.pack.trim`) loses nothing. `pooled` is what lies before the projection.

    Args:
        vocabulary: V; ids lie in `[0, V)`.
        context: the most tokens that a text can have, start and end included.
        width, depth, heads: D, the number of blocks, attention heads.
        end: id of the end token; None for the largest id, V - 1. Of several, the first counts.
        mlp_ratio: hidden width of the MLPs over D.
        quick_gelu: whether the GELU is that of OpenAI's weights.
        eps: of the layer norms.
    """

    def __init__(
        self,
        vocabulary: int,
        context: int,
        width: int,
        depth: int,
        heads: int,
        end: int | None = None,
        mlp_ratio: float = 4.0,
        quick_gelu: bool = False,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.end = vocabulary - 1 if end is None else end
        if not 0 <= self.end < vocabulary:
            raise TacitError(f"the end token {self.end} is none of the {vocabulary:,} ids")
        self.width, self.depth, self.context = width, bounded(depth), context
        self.token_embedding = nn.Embedding(vocabulary, width)
        self.pos_embed = nn.Parameter(torch.empty(1, context, width))
        self.blocks = nn.ModuleList([Block(width, heads, mlp_ratio, eps=eps) for _ in range(depth)])
        for block in self.blocks:
            block.attn = Attention(width, heads, causal=True)
        if quick_gelu:
            quicken(self.blocks)
        self.norm = nn.LayerNorm(width, eps=eps)
        self._first_values()

    def _first_values(self) -> None:
        """As in CLIP: normal weights whose deviations fall with width and depth; biases of the MLPs as the framework does."""
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.pos_embed, std=0.01)
        deep = self.width**-0.5 * (2 * self.depth) ** -0.5
        stds = {"attn.qkv": self.width**-0.5, "attn.proj": deep, "mlp.fc1": (2 * self.width) ** -0.5, "mlp.fc2": deep}
        for block in self.blocks:
            for name, std in stds.items():
                nn.init.normal_(block.get_parameter(f"{name}.weight"), std=std)
            nn.init.zeros_(block.get_parameter("attn.qkv.bias"))
            nn.init.zeros_(block.get_parameter("attn.proj.bias"))

    def forward(
        self,
        x: Tensor,
        keep: Tensor | None = None,
        draws: Draws | None = None,
        taps: Sequence[str] = (),
        attention: bool = False,
    ) -> Encoded:
        """Encode `x`, int64 `[B, L]` with L up to `context`; a text without end token is read at its last place.

        See `Encoder.forward`; `keep` is refused. Tokens are `[B, L, D]` after the last norm, a tap `blocks.i` is the output of
        a block, `[B, L, D]`, without norm.
        """
        if keep is not None:
            raise TacitError("a text that is read from left to right has no tokens to hide")
        if x.shape[1] > self.context:
            raise TacitError(f"texts of {x.shape[1]} tokens were given; this trunk reads {self.context} at most: cut them")
        y = self.token_embedding(x) + self.pos_embed[:, : x.shape[1]]
        y, seen, maps = self.passed(y, draws, taps, attention)
        rows = torch.arange(x.shape[0], device=x.device)
        return Encoded(y[rows, end_places(x, self.end)], y, taps=seen, attention=maps)

    def grid(self, extent: Sequence[int]) -> tuple[int, ...]:
        return tuple(extent)


class Reader(nn.Module):
    """A text trunk and the map into the space that texts share with pictures; the end token is the largest id.

    Args:
        name: of the trunk's size, one of `VARIANTS`.
        vocabulary, context, quick_gelu: see `TextTransformer`.
        out: length of what comes out.

    Attributes:
        config: what makes it again, `Reader(**config)`; plain JSON values.
    """

    def __init__(self, name: str, vocabulary: int, context: int, out: int, quick_gelu: bool = False) -> None:
        super().__init__()
        self.config = {"name": name, "vocabulary": vocabulary, "context": context, "out": out, "quick_gelu": quick_gelu}
        shape = VARIANTS[one_of("text tower", name, VARIANTS)]
        self.trunk = TextTransformer(vocabulary, context, *shape, quick_gelu=quick_gelu)
        self.head = projection(shape.width, out)

    def forward(self, tokens: Tensor) -> Tensor:
        """int64 `[B, L]` -> `[B, out]`, of any length."""
        return self.head(self.trunk(tokens).pooled)


def end_places(tokens: Tensor, end: int) -> Tensor:
    """Where each text has its first end token, its last place if it has none: int64 `[B, L]` -> `[B]`."""
    places = torch.arange(tokens.shape[1], device=tokens.device)
    return torch.where(tokens == end, places, tokens.shape[1] - 1).amin(dim=1)
