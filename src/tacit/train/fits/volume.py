"""Volumes: voxels grow with the third power of a side, so views are small."""

from __future__ import annotations

from tacit.data.kinds.kind import sides
from tacit.methods.method import Chosen
from tacit.train.situation import Situation

__all__ = ["encoder", "extent", "feature_size", "fewest", "size"]

fewest = 8
"""What ALICE and SAM were published with."""

STEP = 16
"""What a 3D Swin halves a side by: views are a multiple of it."""

BRIEFLY = 10.0
"""Minutes up to which a processor trains on the smallest crops.

A step costs as the volume of its crops, and by steps it learns. Tried with 3 minutes of one core: a linear head on the maps of
a network trained on 16 voxels and shown 32 segments better than one trained on 32 (`docs/data/volumes.md`).
"""


def size(now: Situation) -> Chosen:
    side = whole(now)
    if _small(now) and side.value > STEP:
        return Chosen(STEP, f"small crops buy steps, which count most in {now.minutes:g} minutes on a processor")
    return side


def feature_size(now: Situation, size: int) -> Chosen:
    side = whole(now).value
    if _small(now) and size < side and "size" not in now.training:
        return Chosen(side, "a place is known by more of what surrounds it than crops of training show")
    return Chosen(0, "as in training")


def _small(now: Situation) -> bool:
    """Whether time is short, and places of one crop are not what a method sets apart: that wants many of them."""
    short = now.device == "cpu" and now.minutes <= BRIEFLY
    return short and not now.method.negatives and "encoder" not in now.training


def whole(now: Situation) -> Chosen:
    """Side of views that show as much as the samples have and the time allows."""
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
