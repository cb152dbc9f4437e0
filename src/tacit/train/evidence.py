"""What a verdict rests on, and from which figures on it says something."""

from __future__ import annotations

from dataclasses import dataclass

Row = dict[str, float]

ENOUGH = 48
"""Fewer held-back samples than this prove nothing."""

CLEAR = 2.0
"""A lead of so many standard errors is more than luck."""

COLLAPSED_RANK = 1.5
"""Below this, features lie on one line: no two directions carry anything."""


@dataclass(frozen=True)
class Evidence:
    """What a verdict rests on.

    Attributes:
        now: figures (`watch.describe`) of the encoder, and how far ahead it is of both baselines (`Watch.compare`).
        untrained, raw: figures of the encoder before its first step, and of raw input.
        loss: mean of the last losses, unknown before the first step; first_loss: of the first.
        chance: the loss of a model that learned nothing, as far as it is known.
        samples: how many held-back samples the figures rest on.
        step: optimiser steps so far.
    """

    now: Row
    untrained: Row
    raw: Row
    loss: float
    first_loss: float
    chance: float | None
    samples: int
    step: int

    @property
    def wrong_sign(self) -> bool:
        """Whether the loss fell below 0, where one that is above 0 by chance cannot be."""
        return self.chance is not None and self.chance > 0 and self.loss < 0
