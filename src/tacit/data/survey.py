"""What `tacit doctor` finds out about data before anybody trains on it, and what `auto` needs to know of it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from tacit.core.errors import TacitError
from tacit.data.collection import Collection
from tacit.data.index import spread
from tacit.data.payload import Unreadable
from tacit.data.spec import Spec
from tacit.data.text.wording import COLUMN, captions_of
from tacit.data.workers import in_order, pool

SIDE = 128
"""Samples are looked at in this size."""

TINY = 12
"""Side of the pictures that near-duplicates are told by."""

ALIKE = 0.995
"""Two tiny pictures with a correlation above this, and means nearer than `NEAR`, are near-duplicates."""

NEAR = 0.03

FLAT = 2 / 255
"""A patch with a smaller standard deviation than this is flat."""


@dataclass(frozen=True)
class Survey:
    """The facts about a collection that come from looking at its samples.

    Attributes:
        samples: how many there are.
        looked_at: how many of them were decoded.
        broken: path and reason of those that could not be.
        smallest, typical, largest: extents (least, median and largest of each axis) as the files have them, in pixels.
        dtype: `uint8`, `uint16` or `float32`.
        channels, low, high, mean, std: as in `Spec`.
        duplicates: share of samples with a near-duplicate among those looked at, in `[0, 1]`; exact copies count.
        copies: share of samples whose decoded values are those of another, in `[0, 1]`.
        sparse: share of pixels within 2 of 255 levels of the background, the commonest value of all samples together.
        flat: share of 8x8 patches (4x4 below 64 pixels) whose standard deviation is under 2 of 255 levels.
        constant: share of samples with one value everywhere.
        splits: how many samples each split has.
        classes: how many different labels there are; 0 without labels.
        captions: of the samples looked at, where the data has any.
        traits: which samples have which of the traits that their kind tells, by trait and value.
        notes: what the owner should know, one line each.
    """

    samples: int
    looked_at: int
    broken: dict[str, str]
    smallest: tuple[int, ...]
    typical: tuple[int, ...]
    largest: tuple[int, ...]
    dtype: str
    channels: int
    low: float
    high: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    duplicates: float
    copies: float
    sparse: float
    flat: float
    constant: float
    splits: dict[str, int]
    classes: int
    captions: tuple[str, ...] = ()
    traits: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Look:
    """What is kept of one sample."""

    extent: tuple[int, ...]
    digest: str
    tiny: np.ndarray  # [TINY, TINY, C'] float32 in [0, 1], C' at most 3
    counts: np.ndarray  # [256], pixels by grey level
    flat: float
    constant: bool
    traits: dict[str, str]


def survey(collection: Collection, spec: Spec, sample: int = 5000) -> Survey:
    """Look at up to `sample` evenly spread samples. The same data gives the same survey.

    Args:
        collection: the samples.
        spec: what `measure` says of them.
        sample: how many are decoded.
    """
    rows = spread(len(collection), sample).tolist()
    with pool() as workers:
        found = list(in_order(workers, lambda row: _look(collection, spec, row), rows))
    looks = [look for look in found if isinstance(look, _Look)]
    if not looks:
        raise TacitError(f"none of the {len(rows)} samples looked at can be decoded; the first: {found[0]}")
    broken = {collection.index.path(row): why for row, why in zip(rows, found, strict=True) if isinstance(why, str)}
    extents = np.array([look.extent for look in looks])
    digests = [look.digest for look in looks]
    times = Counter(digests)
    counts = np.sum([look.counts for look in looks], axis=0)
    background = int(counts.argmax())
    labels = collection.index.strings("label")
    facts = Survey(
        samples=len(collection),
        looked_at=len(rows),
        broken=broken,
        smallest=tuple(extents.min(axis=0).tolist()),
        typical=tuple(np.median(extents, axis=0).astype(int).tolist()),
        largest=tuple(extents.max(axis=0).tolist()),
        dtype=collection.form.dtype,
        channels=spec.channels,
        low=spec.low,
        high=spec.high,
        mean=spec.mean,
        std=spec.std,
        duplicates=float(_has_alike(np.stack([look.tiny for look in looks])).mean()),
        copies=float(np.mean([times[digest] > 1 for digest in digests])),
        sparse=float(counts[max(0, background - 2) : background + 3].sum() / counts.sum()),
        flat=float(np.mean([look.flat for look in looks])),
        constant=float(np.mean([look.constant for look in looks])),
        splits=collection.index.splits,
        classes=0 if labels is None else len(set(labels) - {""}),
        captions=_captions(collection, rows),
        traits=_traits(collection, rows, found),
    )
    facts.notes.extend(collection.kind.checks(facts))
    return facts


def _captions(collection: Collection, rows: list[int]) -> tuple[str, ...]:
    table = collection.index.table
    return tuple(text for row in rows for text in captions_of(table, row)) if COLUMN in table.column_names else ()


def _traits(collection: Collection, rows: list[int], found: Sequence[_Look | str]) -> dict[str, dict[str, list[str]]]:
    told: dict[str, dict[str, list[str]]] = {}
    for row, look in zip(rows, found, strict=True):
        for trait, value in look.traits.items() if isinstance(look, _Look) else ():
            told.setdefault(trait, {}).setdefault(value, []).append(collection.name(row))
    return told


def _look(collection: Collection, spec: Spec, row: int) -> _Look | str:
    try:
        form = collection.kind.form(collection.read(row), collection.name(row), collection.limits)
        decoded = collection.glance(row, SIDE)
    except Unreadable as problem:
        return str(problem)
    picture = collection.kind.picture(decoded)
    scaled = ((picture.astype(np.float32) - spec.low) / (spec.high - spec.low)).clip(0, 1)
    grey = scaled.mean(axis=2)
    traits = collection.kind.traits
    return _Look(
        form.extent,
        hashlib.blake2b(decoded.tobytes() + str(decoded.shape).encode(), digest_size=16).hexdigest(),
        _tiny(scaled if scaled.shape[2] == 3 else grey[..., None]),
        np.bincount(np.rint(grey * 255).astype(np.uint8).ravel(), minlength=256),
        _flat(scaled, 8 if min(grey.shape) >= 64 else 4),
        bool((picture == picture[:1, :1]).all()),
        {} if traits is None else traits(form, decoded, collection.form),
    )


def _tiny(scaled: np.ndarray) -> np.ndarray:
    planes = [Image.fromarray(plane).resize((TINY, TINY), Image.Resampling.BOX) for plane in np.moveaxis(scaled, 2, 0)]
    return np.stack([np.asarray(plane) for plane in planes], axis=2)


def _flat(scaled: np.ndarray, patch: int) -> float:
    """Share of whole patches in which no channel varies by more than `FLAT`."""
    height, width = (n // patch for n in scaled.shape[:2])
    if not height or not width:
        return 0.0
    cut = scaled[: height * patch, : width * patch].reshape(height, patch, width, patch, -1)
    return float((cut.std(axis=(1, 3)).max(axis=-1) < FLAT).mean())


def _has_alike(tiny: np.ndarray) -> np.ndarray:
    """Bool `[N]`: is there another sample with nearly the same tiny picture?"""
    flat = tiny.reshape(len(tiny), -1).astype(np.float32)
    means = flat.mean(axis=1)
    centred = flat - means[:, None]
    norms = np.linalg.norm(centred, axis=1)
    # Where hardly anything varies, correlation would compare noise: such pictures are alike when their means are.
    plain = norms < FLAT * np.sqrt(flat.shape[1])
    unit = np.where(plain[:, None], 0, centred / np.maximum(norms, 1e-12)[:, None])
    alike = np.zeros(len(flat), dtype=bool)
    for start in range(0, len(flat), 512):
        block = slice(start, start + 512)
        same = (unit[block] @ unit.T > ALIKE) | (plain[block, None] & plain[None])
        same &= np.abs(means[block, None] - means[None]) < NEAR
        same[np.arange(len(same)), np.arange(start, start + len(same))] = False
        alike[block] = same.any(axis=1)
    return alike
