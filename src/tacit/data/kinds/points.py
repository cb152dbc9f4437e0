"""Clouds of points: coordinates first, then whatever else is known of each point, in the units that the files have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tacit.data.kinds.formats import clouds, npy
from tacit.data.kinds.formats.content import DEFAULT_LIMITS, as_labels, guarded, kept, length, opened
from tacit.data.kinds.kind import Form, Sniffed, empty_and_alike, ending
from tacit.data.payload import Limits, Payload, Unreadable
from tacit.data.window import Part, Spread, cut

if TYPE_CHECKING:
    from tacit.data.survey import Survey

name = "points"
default_encoder = "point-vit-micro"
channel_names = ("x", "y", "z")
pixels = slice(0, 0)
unit = "points"
gather = traits = None
together = frozenset()
seeks = False
glance = Spread(8192)

OWN = frozenset({".ply", ".off", ".obj"})
"""Extensions that hold points, or meshes, and nothing else."""

SHARED = clouds.EXTENSIONS - OWN
"""These may hold anything."""

WIDE = 16
"""Points with more numbers than this are not taken for points unless somebody says so."""

SIDE = 64
"""Of each of the two projections in a picture, in pixels."""

FEW = 64
"""Fewer points than this make hardly a shape."""

FAR = 1e5
"""So many deviations from the origin, float32 has but a hundredth of a deviation left between two numbers."""


def extensions() -> frozenset[str]:
    return clouds.EXTENSIONS


def sniff(names: Sequence[str], first: Payload | None) -> Sniffed:
    for certainty, known, what in ((1.0, OWN, "a cloud of points"), (0.2, SHARED, "an array, perhaps of points")):
        count = sum(ending(name) in known for name in names)
        if count and (first is None or known is OWN):
            return Sniffed(
                certainty * count / len(names), f"{count} of {len(names)} names looked at have the extension of {what}"
            )
    if first is None:
        return Sniffed(0.0, "no name has the extension of a cloud of points")
    try:
        seen = form(first, names[0] if names else "")
    except Unreadable as problem:
        return Sniffed(0.0, f"the first sample is no cloud of points: {problem}")
    points, channels = seen.extent[0], seen.channels
    if channels > WIDE or points < 8 * channels:
        return Sniffed(0.0, f"the first sample has {points} rows of {channels} numbers: rather a table than points")
    return Sniffed(0.6, f"the first sample has {points} rows of {channels} numbers: points")


def form(payload: Payload, name: str = "", limits: Limits = DEFAULT_LIMITS) -> Form:
    if isinstance(payload, np.ndarray):
        return Form(_rows(payload).shape[1], "float32", (len(payload),))
    found = clouds.header(payload, name, limits)
    return Form(3 + len(found.features), "float32", (found.points,))


def agree(forms: Sequence[Form]) -> Form:
    """The features of most; a typical number of points."""
    counts = Counter(form.channels for form in forms)
    channels = max(counts, key=lambda each: (counts[each], each))
    points = sorted(form.extent[0] for form in forms if form.channels == channels)
    return Form(channels, "float32", (points[len(points) // 2],))


def decode(
    payload: Payload,
    form: Form | None = None,
    side: int | None = None,
    name: str = "",
    limits: Limits = DEFAULT_LIMITS,
    part: Part | None = None,
) -> np.ndarray:
    if isinstance(payload, np.ndarray):
        points = _rows(payload).astype(np.float32)
    else:
        points = clouds.read(payload, None, name, limits)
    if form is not None and points.shape[1] != form.channels:
        raise Unreadable(f"{points.shape[1] - 3} feature(s) beside x, y and z, the other samples have {form.channels - 3}")
    if part is not None:
        points = cut(points, part(points.shape[:1]))
    if not np.isfinite(points).all():
        raise Unreadable("contains NaN or infinite values")
    return points


@guarded
def mask(
    payload: Payload,
    form: Form | None = None,
    side: int | None = None,
    name: str = "",
    limits: Limits = DEFAULT_LIMITS,
    part: Part | None = None,
) -> np.ndarray:
    """From a `.npy` or `.npz` with one number for each point, in the order of the cloud's file."""
    if isinstance(payload, np.ndarray):
        labels = as_labels(payload)
    else:
        with opened(payload) as file:
            labels = as_labels(npy.only(file, length(file), limits))
    if labels.ndim != 1:
        raise Unreadable(f"labels of shape {labels.shape}: one for each point was expected")
    return labels if part is None else cut(labels, part(labels.shape))


def picture(sample: np.ndarray) -> np.ndarray:
    """From above and from the side, next to each other: how many points there are, in steps that the eye takes for even.

    Each cloud fills its own frame, but for the farthest hundredth of its points. float32 `[64, 128, 1]` in `[0, 1]`.
    """
    points = sample[:, :3].astype(np.float64)
    low, high = np.percentile(points, (0.5, 99.5), axis=0)
    side = max(float((high - low).max()), 1e-12)
    cells = np.floor(((points - (low + high) / 2) / side + 0.5) * (SIDE - 1e-6)).astype(np.int64)
    views = []
    for across, up in ((0, 1), (0, 2)):
        column, row = cells[:, across], SIDE - 1 - cells[:, up]
        inside = (column >= 0) & (column < SIDE) & (row >= 0) & (row < SIDE)
        counts = np.bincount(row[inside] * SIDE + column[inside], minlength=SIDE**2).reshape(SIDE, SIDE)
        views.append(np.log1p(counts) / np.log1p(max(counts.max(), 1)))
    return np.concatenate(views, axis=1, dtype=np.float32)[..., None]


def checks(survey: Survey) -> list[str]:
    found = []
    smallest, typical, largest = survey.smallest[0], survey.typical[0], survey.largest[0]
    if smallest != largest:
        found.append(f"numbers of points differ: {smallest:,} to {largest:,}, typically {typical:,}")
    if smallest < FEW:
        found.append(f"the smallest cloud has {smallest} point(s): too few to hide a part of it")
    if max(abs(mean) for mean in survey.mean[:3]) > FAR * max(survey.std[:3]):
        found.append("the points lie far from the origin for their size, and float32 blurs them: subtract an offset from all")
    return found + empty_and_alike(survey, "clouds")


@guarded
def _rows(array: np.ndarray) -> np.ndarray:
    """`[N, 3 + F]` of numbers."""
    kept(array.dtype)
    if array.ndim != 2 or not 3 <= array.shape[1] <= 3 + clouds.MOST_FEATURES or not len(array):
        raise Unreadable(f"an array of shape {array.shape} is no cloud: [N, 3] or a few more was expected")
    return array
