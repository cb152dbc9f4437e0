"""The way through a transformer's blocks."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor
from torch.nn import ModuleList
from torch.utils.checkpoint import checkpoint

from tacit.core.draws import Draws
from tacit.core.errors import one_of


def through(
    blocks: ModuleList,
    x: Tensor,
    draws: Draws | None = None,
    taps: Iterable[str] = (),
    attention: bool = False,
    recompute: bool = False,
    visible: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor], Tensor | None]:
    """Send tokens `[B, T, D]` through all blocks.

    Args:
        blocks: see `blocks.Block`.
        x: tokens, prefix tokens first, with their positions.
        draws: what drop path is drawn from; without it nothing is dropped.
        taps: names of the blocks whose output is to be returned (`blocks.3`).
        attention: also return the last block's attention.
        recompute: keep no activations of the blocks, but compute them anew in the backward pass.
        visible: which token may look at which, for blocks that take such a mask.

    Returns:
        The tokens, the outputs that were asked for by name, and the attention `[B, heads, T, T]` or None.
    """
    taps = list(taps)
    for tap in taps:
        one_of("tap", tap, [f"blocks.{index}" for index in range(len(blocks))])
    maps, seen, more = None, {}, () if visible is None else (visible,)
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
