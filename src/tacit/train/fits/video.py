"""Films: what counts is how many tubelets, or voxels, a clip has."""

from __future__ import annotations

from tacit.data.kinds.kind import sides
from tacit.methods.method import Chosen
from tacit.train.fits.same import feature_size, fewest
from tacit.train.situation import Situation

__all__ = ["encoder", "extent", "feature_size", "fewest", "size"]

TUBELET = 2

BRIEFLY, USUALLY, MOST = 64, 256, 512
"""Tubelets of a clip: in a brief run on a processor, at whose end encoders of more are at the mean colour still; in a longer
one; and on other devices."""


def size(now: Situation) -> Chosen:
    side = min(sides(now.spec.kind, now.spec.size))
    most = 32 if now.device == "cpu" and now.minutes <= 4 else 64 if now.device == "cpu" else 112
    if side > most:
        return Chosen(most, f"{side} pixels would be too slow for {now.minutes:g} minutes on this {now.device}")
    return Chosen(max(8, side // 8 * 8), f"frames are {side} pixels")


def extent(now: Situation, size: int) -> tuple[int, ...]:
    """As many frames as suit the machine, and half as many as a video has where that is enough, so that clips differ."""
    there = now.spec.size[0]
    most = now.options.get("frames") or (8 if now.device == "cpu" else 16)
    return (max(TUBELET, min(most, there) // TUBELET * TUBELET), size, size)


def encoder(now: Situation, size: int) -> Chosen:
    if not now.method.tokens:
        name = "r3d-mini" if now.device == "cpu" else "r3d18"
        return Chosen(name, f"a convolutional network for clips on a {now.device}")
    slots = extent(now, size)[0] // TUBELET
    most = BRIEFLY if now.brief else USUALLY if now.device == "cpu" else MOST
    patch = next(p for p in range(1, size + 1) if size % p == 0 and slots * (size // p) ** 2 <= most)
    name = "video-vit-micro" if now.device == "cpu" else "video-vit-small"
    return Chosen(f"{name}/{TUBELET}x{patch}", f"{slots * (size // patch) ** 2} tubelets of a clip are hidden or seen")
