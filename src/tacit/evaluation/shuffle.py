"""Orders of samples for classifiers on features, which are small enough to be sorted whole."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from tacit.core.draws import Draws

AT_ONCE = 2**17
"""About so many places are drawn together: one by one, the orders of a small set would cost more than the training."""


def shuffles(count: int, seed: int, name: str, device: torch.device) -> Iterator[Tensor]:
    """A new order of `range(count)` each time, int64 `[count]`, without end; a function of its place, the seed and the name."""
    samples, block = torch.arange(count, device=device), 0
    while True:
        drawn = Draws(seed, block, samples).words(name, max(1, AT_ONCE // count))  # [count, orders]
        yield from drawn.T.contiguous().argsort(dim=1, stable=True)
        block += 1
