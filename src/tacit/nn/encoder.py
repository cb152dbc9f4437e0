"""The contract of an encoder: what is kept after pretraining, and all that evaluation ever sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from tacit.core.draws import Draws
from tacit.core.errors import TacitError

DEEPEST = 1000
"""Blocks that an encoder can have: what asks for more is a mistake, or out to fill the memory."""


def bounded(depth: int) -> int:
    """A number of blocks, if an encoder can have so many; else a `TacitError`."""
    if not 0 < depth <= DEEPEST:
        raise TacitError(f"{depth} blocks were asked for; 1 to {DEEPEST:,} were expected")
    return depth


@dataclass
class Encoded:
    """What an encoder says about a batch.

    Attributes:
        pooled: `[B, D]`, one vector per sample: the features that evaluation, embedding and search use.
        tokens: `[B, L, D]`, one vector per place (patch or cell of the last map), in the order of `keep` where that was given.
        prefix: `[B, P, D]`, class token and registers, for trunks that have them.
        taps: intermediate outputs that were asked for, by name.
        attention: `[B, heads, T, T]`, the last block's attention, when it was asked for.
    """

    pooled: Tensor
    tokens: Tensor
    prefix: Tensor | None = None
    taps: dict[str, Tensor] = field(default_factory=dict)
    attention: Tensor | None = None


class Encoder(nn.Module):
    """Tokenizer and trunk. Parameter names are timm's.

    Attributes:
        config: what `nn.build.encoder(**config)` needs to make this module again; plain JSON values.
        width: D, the length of a feature vector.
        depth: the number of blocks, for drop path and layer-wise decay.
    """

    config: dict[str, Any]
    width: int
    depth: int

    def forward(
        self,
        x: Tensor,
        keep: Tensor | None = None,
        draws: Draws | None = None,
        taps: Sequence[str] = (),
        attention: bool = False,
    ) -> Encoded:
        """Encode `x [B, C, *extent]`.

        Args:
            x: normalised samples.
            keep: int64 `[B, k]`, the places to look at, in the order in which they are to come out; what is not named is
                neither embedded nor attended to. Trunks without tokens refuse it.
            draws: what drop path is drawn from; without it nothing is dropped.
            taps: names of intermediates to return (`blocks.3`, `layer2`).
            attention: also return the last block's attention.
        """
        raise NotImplementedError

    def program(self, x: Tensor) -> Tensor:
        """The pooled features `[B, D]` of `x`, by operations that can be traced: what is exported for other programs."""
        return self(x).pooled

    def grid(self, extent: Sequence[int]) -> tuple[int, ...]:
        """How many places each axis of an input of this extent has."""
        raise NotImplementedError

    def level(self, name: str) -> int:
        """How deep a parameter lies: 0 for tokenizer and positions, `depth + 1` for what follows the last block."""
        raise NotImplementedError
