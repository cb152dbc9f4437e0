"""What samples look like in numbers, from a fixed part of them."""

from __future__ import annotations

import numpy as np

from tacit.core.errors import TacitError
from tacit.data.collection import Collection
from tacit.data.index import spread
from tacit.data.kinds.kind import shrunk, sides
from tacit.data.payload import Unreadable
from tacit.data.spec import Spec
from tacit.data.workers import in_order, pool

SIDE = 256
"""Statistics are taken at this size: more pixels would only repeat their neighbours."""

VALUES = 8192
"""About so many values of each sample are kept for the statistics."""


def measure(collection: Collection, sample: int = 2000, side: int | None = None) -> Spec:
    """The `Spec` of a collection, from at most `sample` of its samples, evenly spread; the same every time.

    `low` and `high` are 0 and 255 for 8 bits, else the percentiles 0.1 and 99.9. A standard deviation below 0.001 is
    given as 0.001: samples that are all alike must not be divided by nothing. What has no pixels has no brightness either: its
    values keep their units, so that these are 0 and 1, and a deviation is as small as float32 can tell.

    Args:
        collection: only these samples are looked at.
        sample: how many at most.
        side: the side that samples will be decoded at; `Spec.size` is typical of that.
    """
    rows = spread(len(collection), sample)

    def look(row: int) -> np.ndarray | None:
        try:
            decoded = collection.glance(row, min(side or SIDE, SIDE))
        except Unreadable:
            return None
        pixels = decoded.reshape(-1, decoded.shape[-1])
        # An odd step, so that it does not fall on the same columns in every line.
        return pixels[:: len(pixels) * len(pixels[0]) // VALUES | 1]

    with pool() as workers:
        seen = [found for found in in_order(workers, look, rows.tolist()) if found is not None]
    if not seen:
        raise TacitError(f"none of {len(rows)} samples looked at can be decoded; `tacit doctor` lists the reasons")
    bright = bool(sides(collection.kind.name, collection.form.extent))
    low, high = _extremes(np.concatenate(seen), collection.form.dtype) if bright else (0.0, 1.0)
    scaled = [(pixels.astype(np.float64) - low) / (high - low) for pixels in seen]
    scaled = [s.clip(0, 1) for s in scaled] if bright else scaled
    mean = np.mean([s.mean(axis=0) for s in scaled], axis=0)
    square = np.mean([(s**2).mean(axis=0) for s in scaled], axis=0)
    least = 1e-3 if bright else np.maximum(1e-6 * np.abs(mean), 1e-30)
    std = np.maximum(np.sqrt(np.maximum(square - mean**2, 0)), least)
    return Spec(
        kind=collection.kind.name,
        channels=collection.form.channels,
        size=shrunk(collection.kind.name, collection.form.extent, side),
        low=low,
        high=high,
        mean=tuple(round(float(m), 6) if bright else float(f"{m:.9g}") for m in mean),
        std=tuple(round(float(s), 6) if bright else float(f"{s:.9g}") for s in std),
        names=collection.form.names
        or (names if collection.form.channels == len(names := collection.kind.channel_names) else ()),
    )


def _extremes(pixels: np.ndarray, dtype: str) -> tuple[float, float]:
    if dtype == "uint8":
        return 0.0, 255.0
    low, high = (float(v) for v in np.percentile(pixels, (0.1, 99.9)))
    return (low, high) if high > low else (low, low + 1.0)
