"""How a classifier's rate rises and falls."""

from __future__ import annotations

import math


def warmed_cosine(done: float, warmup: float) -> float:
    """The share of the rate when a share `done` of the steps, in `[0, 1)`, is behind: a line up to 1, then a cosine to 0."""
    if done < warmup:
        return done / warmup
    return 0.5 * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup)))
