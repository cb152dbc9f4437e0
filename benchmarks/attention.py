"""Attention in bfloat16 on a processor: written out beside the fused kernel, forward and backward.

    python benchmarks/attention.py

Writes `benchmarks/results/attention.json`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from pairs import alternate, keep, summary

from tacit.core.allocator import keep_freed_memory
from tacit.nn.blocks import Attention

SHAPES = ((128, 17, 96, 4), (128, 65, 64, 4), (64, 37, 192, 3), (32, 197, 384, 6), (4, 1025, 384, 6))
"""Batch, tokens, width, heads."""


class Fused(Attention):
    """As it would be without a word on the device."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._merge(F.scaled_dot_product_attention(*self._heads(x)))


def main() -> None:
    """Time every shape both ways."""
    keep_freed_memory()
    found: list[dict[str, Any]] = []
    for batch, tokens, width, heads in SHAPES:
        x = torch.randn(batch, tokens, width, generator=torch.Generator().manual_seed(0))

        def step(kind: type[Attention], x: torch.Tensor = x, width: int = width, heads: int = heads) -> object:
            module = kind(width, heads)

            def call() -> None:
                with torch.autocast("cpu", torch.bfloat16):
                    module(x).float().sum().backward()

            return call

        seconds = summary(alternate({"tacit": step(Attention), "fused": step(Fused)}, pairs=9))  # pyright: ignore
        ratio = seconds["fused"]["median"] / seconds["tacit"]["median"]
        found.append({"batch": batch, "tokens": tokens, "width": width, "heads": heads, "seconds": seconds, "ratio": ratio})
        print(f"batch {batch}, {tokens} tokens, width {width}: fused / tacit = {ratio:.2f}")
    keep("attention", {"shapes": found})


if __name__ == "__main__":
    main()
