"""Clouds of points: what counts is how many tokens they fall into, and that the method's radius decides."""

from __future__ import annotations

from tacit.methods.method import Chosen
from tacit.train.fits.same import feature_size
from tacit.train.situation import Situation

__all__ = ["encoder", "extent", "feature_size", "fewest", "size"]

fewest = 8
"""A cloud has tokens by the hundred. Of a few dozen events, batches of 32 are too few steps for them to say anything."""


def size(now: Situation) -> Chosen:
    """How many points of a cloud are shown at most."""
    most, there = (2048 if now.device == "cpu" and now.minutes <= 4 else 4096), now.seen.largest[0]
    if there > most:
        return Chosen(most, f"{there} points would be too slow for {now.minutes:g} minutes on this {now.device}")
    return Chosen(max(there, 4), f"the largest cloud has {there} points")


def extent(now: Situation, size: int) -> tuple[int, ...]:
    return (size,)


def encoder(now: Situation, size: int) -> Chosen:
    if now.device == "cpu":
        return Chosen("point-vit-micro", "trains quickly on a processor")
    return Chosen("point-vit-mini" if now.kept < 20_000 else "point-vit-small", f"{now.kept} samples and a GPU")
