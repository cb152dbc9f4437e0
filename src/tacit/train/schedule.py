"""How a rate changes over a run: pure functions of the position, in steps or in (fractional) epochs alike."""

from __future__ import annotations

import math
from collections.abc import Callable

from tacit.core.errors import one_of


def scaled(base: float, batch: int) -> float:
    """The linear rule: `base * batch / 256`, with the batch of all ranks and accumulated parts."""
    return base * batch / 256


def cosine(fraction: float, start: float, end: float) -> float:
    """Half a cosine from `start` at 0 to `end` at 1: `end + (start - end) (1 + cos(pi fraction)) / 2`."""
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * fraction))


def linear(fraction: float, start: float, end: float) -> float:
    """A straight line from `start` at 0 to `end` at 1."""
    return start + (end - start) * fraction


def warmup_cosine(position: float, warmup: float, total: float, base: float, end: float = 0.0) -> float:
    """Linear from 0, `base` at `warmup`, then a cosine to `end` at `total` (MAE, SimCLR, MoCo v3)."""
    if position < warmup:
        return base * position / warmup
    return cosine((position - warmup) / (total - warmup), base, end)


def inclusive_warmup_cosine(position: float, warmup: float, total: float, base: float, end: float = 0.0) -> float:
    """DINO's: the last step of the warm-up already has `base`, and so has the first of the cosine. Positions are steps."""
    if position < warmup:
        return base * position / max(warmup - 1, 1)
    return cosine((position - warmup) / (total - warmup), base, end)


def warmup_linear(position: float, warmup: float, total: float, base: float, end: float = 0.0) -> float:
    """Linear from 0, `base` at `warmup`, then a straight line to `end` at `total`."""
    if position < warmup:
        return base * position / warmup
    return linear((position - warmup) / (total - warmup), base, end)


def constant(position: float, warmup: float, total: float, base: float, end: float = 0.0) -> float:
    """Linear from 0, then `base` for good."""
    return base * min(position / warmup, 1.0) if warmup else base


def constant_decay(position: float, warmup: float, total: float, base: float, end: float = 0.0) -> float:
    """Linear from 0, then `base`, then over the last fifth of the run a straight line to `end`."""
    decay = 0.8 * total
    if position < max(warmup, decay):
        return constant(position, warmup, total, base)
    return linear((position - decay) / (total - decay), base, end)


SCHEDULES: dict[str, Callable[[float, float, float, float, float], float]] = {
    "cosine": warmup_cosine,
    "cosine-inclusive": inclusive_warmup_cosine,
    "linear": warmup_linear,
    "constant": constant,
    "constant-decay": constant_decay,
}


def rate(name: str, position: float, warmup: float, total: float, base: float, end: float = 0.0) -> float:
    """The rate at `position` of `total` by the schedule of this name.

    Args:
        name: one of `SCHEDULES`.
        position, warmup, total: in the same unit; `0 <= position <= total`, `warmup < total`.
        base: the highest rate.
        end: the last one.
    """
    return SCHEDULES[one_of("schedule", name, SCHEDULES)](position, warmup, total, base, end)
