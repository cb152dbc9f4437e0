"""Pictures with captions: towers without batch statistics, and some sixty patches."""

from __future__ import annotations

from tacit.methods.method import Chosen
from tacit.train.fits.image import extent
from tacit.train.fits.image import whole as size
from tacit.train.fits.same import feature_size, fewest
from tacit.train.situation import Situation

__all__ = ["encoder", "extent", "feature_size", "fewest", "size"]

ACROSS = 8
"""At most so many patches side by side."""


def encoder(now: Situation, size: int) -> Chosen:
    patch = next(p for p in range(1, size + 1) if size % p == 0 and size // p <= ACROSS)
    name = "clip-vit-micro" if now.device == "cpu" else "clip-vit-small"
    return Chosen(f"{name}/{patch}", f"{(size // patch) ** 2} patches, and no batch statistics")
