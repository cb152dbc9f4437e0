"""Volumes: voxels grow with the third power of a side, so views are small."""

from __future__ import annotations

from tacit.data.kinds.kind import sides
from tacit.methods.method import Chosen
from tacit.train.fits.same import feature_size
from tacit.train.situation import Situation

__all__ = ["encoder", "extent", "feature_size", "fewest", "size"]

fewest = 8
"""What ALICE and SAM were published with."""

STEP = 16
"""What a 3D Swin halves a side by: views are a multiple of it."""


def size(now: Situation) -> Chosen:
    side = min(sides(now.spec.kind, now.spec.size))
    most = 32 if now.device == "cpu" else 64 if now.minutes <= 30 else 96
    if side >= most:
        return Chosen(most, f"views of {most} voxels suit {now.minutes:g} minutes on this {now.device}")
    return Chosen(max(STEP, side // STEP * STEP), f"samples are {side} voxels, a 3D Swin takes multiples of {STEP}")


def extent(now: Situation, size: int) -> tuple[int, ...]:
    return (size, size, size)


def encoder(now: Situation, size: int) -> Chosen:
    if now.device == "cpu":
        return Chosen("swin3d-micro", "trains quickly on a processor")
    name = "swin3d-mini" if now.minutes <= 60 else "swin3d-base"
    return Chosen(name, f"{now.minutes:g} minutes on this {now.device}")
