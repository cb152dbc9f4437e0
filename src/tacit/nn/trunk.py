"""The way through a transformer's blocks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor
from torch.nn import LayerNorm, ModuleList
from torch.utils.checkpoint import checkpoint

from tacit.core.draws import Draws
from tacit.core.errors import one_of
from tacit.nn.encoder import Encoded, Encoder


def through(
    blocks: ModuleList,
    x: Tensor,
    draws: Draws | None = None,
    taps: Iterable[str] = (),
    attention: bool = False,
    recompute: bool = False,
    more: Sequence[Tensor] = (),
) -> tuple[Tensor, dict[str, Tensor], Tensor | None]:
    """Send tokens `[B, T, D]` through all blocks.

    Args:
        blocks: each is called with tokens, draws and `more`, as `blocks.Block` is.
        x: tokens, prefix tokens first, with their positions.
        draws: what drop path is drawn from; without it nothing is dropped.
        taps: names of the blocks whose output is to be returned (`blocks.3`).
        attention: also return the last block's attention.
        recompute: keep no activations of the blocks, but compute them anew in the backward pass.
        more: what else all of them are given, such as which token may look at which.

    Returns:
        The tokens, the outputs that were asked for by name, and the attention `[B, heads, T, T]` or None.
    """
    taps = list(taps)
    for tap in taps:
        one_of("tap", tap, [f"blocks.{index}" for index in range(len(blocks))])
    maps, seen = None, {}
    for index, block in enumerate(blocks):
        name = f"blocks.{index}"
        inner = draws.within(name) if draws else None
        if attention and index == len(blocks) - 1:
            x, maps = block.with_map(x, inner, *more)  # pyright: ignore[reportCallIssue]
        elif recompute:
            # Nothing is drawn from a generator in here, so there is no state of one to bring back.
            x = checkpoint(block, x, inner, *more, use_reentrant=False, preserve_rng_state=False)  # pyright: ignore
        else:
            x = block(x, inner, *more)
        if name in taps:
            seen[name] = x
    return x, seen, maps


def rising(top: float, depth: int) -> list[float]:
    """Chances of a dropped branch that grow linearly from 0 in the first block to `top` in the last."""
    return [top * index / max(depth - 1, 1) for index in range(depth)]


class Transformer(Encoder):
    """What encoders have in common whose trunk is one row of blocks and a norm.

    Attributes:
        blocks, norm: the trunk.
        recompute: keep no activations of the blocks while training, but compute them anew in the backward pass.
        prefix: how many tokens that belong to no place stand in front, the class token first.
        pool: what a sample's vector is: `cls`, the class token, or `mean`, that of the other tokens; both after the norm.
    """

    blocks: ModuleList
    norm: LayerNorm
    recompute: bool = False
    prefix: int
    pool: str

    def passed(
        self, x: Tensor, draws: Draws | None, taps: Iterable[str], attention: bool, *more: Tensor
    ) -> tuple[Tensor, dict[str, Tensor], Tensor | None]:
        """What `through` returns of tokens `[B, T, D]`, after the norm."""
        x, seen, maps = through(self.blocks, x, draws, taps, attention, self.recompute and self.training, more)
        return self.norm(x), seen, maps

    def read(self, x: Tensor, draws: Draws | None, taps: Iterable[str], attention: bool) -> Encoded:
        """What the trunk says about tokens `[B, prefix + L, D]`."""
        x, seen, maps = self.passed(x, draws, taps, attention)
        prefix, tokens = x[:, : self.prefix], x[:, self.prefix :]
        pooled = prefix[:, 0] if self.pool == "cls" else tokens.mean(dim=1)
        return Encoded(pooled, tokens, prefix if self.prefix else None, seen, maps)

    def level(self, name: str) -> int:
        if name.startswith("blocks."):
            return int(name.split(".")[1]) + 1
        return self.depth + 1 if name.startswith("norm.") else 0
