"""Pictures of channels: every patch of every channel is a token, so that what counts is how many of them there are."""

from __future__ import annotations

from tacit.data.kinds.kind import sides
from tacit.methods.method import Chosen
from tacit.train.fits.same import feature_size, fewest
from tacit.train.situation import Situation

__all__ = ["encoder", "extent", "feature_size", "fewest", "size"]


def size(now: Situation) -> Chosen:
    side = min(sides(now.spec.kind, now.spec.size))
    most = 32 if now.device == "cpu" and now.minutes <= 4 else 64 if now.device == "cpu" else 224
    if side > most:
        return Chosen(most, f"{side} pixels would be too slow for {now.minutes:g} minutes on this {now.device}")
    return Chosen(max(8, side // 8 * 8), f"pictures are {side} pixels")


def extent(now: Situation, size: int) -> tuple[int, ...]:
    """As many channels as the data has at most: those of a batch are padded to its own largest number."""
    return (now.options.get("channels") or now.spec.size[0], size, size)


def encoder(now: Situation, size: int) -> Chosen:
    channels = extent(now, size)[0]
    most = 192 if now.device == "cpu" else 1024
    patch = next(p for p in range(4, size + 1) if (size % p == 0 and channels * (size // p) ** 2 <= most) or p == size)
    name = "channel-vit-micro" if now.device == "cpu" else "channel-vit-tiny"
    return Chosen(f"{name}/{patch}", f"{channels} channels of {(size // patch) ** 2} patches on a {now.device}")
