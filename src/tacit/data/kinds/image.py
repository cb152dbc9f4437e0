"""Pictures, with any number of channels, in 8 or 16 bits or floats.

Nothing is cropped, and neither depth nor channels are dropped to make samples fit: what cannot be read whole, or does not fit
the others, is `Unreadable`. (One loss is Pillow's own: colours of more than 8 bits in JPEG 2000, AVIF and PPM come with 8.)
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from PIL import Image

from tacit.data.kinds.formats import pillow, png, tiff
from tacit.data.kinds.formats.content import as_labels
from tacit.data.kinds.kind import Form, Sniffed, empty_and_alike
from tacit.data.payload import Limits, Payload, Unreadable
from tacit.data.window import Part, cut

if TYPE_CHECKING:
    from tacit.data.survey import Survey

name = "image"
default_encoder = "resnet18"
channel_names = ("red", "green", "blue")
pixels = slice(0, 2)
unit = "pixels"
glance = None
gather = traits = None
together = frozenset()
seeks = False

LONGEST = 4
"""A picture is shrunk to at most this many times `side` (or, without one, what is typical of the longer sides): one panorama
must not blow up its whole batch."""

MOST_CHANNELS = 64
"""An axis of an array that is at most so long, and shorter than the other two, is the axis of channels."""

DEFAULT_LIMITS = Limits()

Result = TypeVar("Result")


@cache
def extensions() -> frozenset[str]:
    return frozenset(pillow.formats()[1]) - {".pdf"}


def sniff(names: Sequence[str], first: Payload | None) -> Sniffed:
    known = sum(_extension(n) in extensions() for n in names)
    if known:
        return Sniffed(known / len(names), f"{known} of {len(names)} names looked at have the extension of a picture")
    if first is None:
        return Sniffed(0.0, "no name has the extension of a picture")
    try:
        seen = form(first)
    except Unreadable as problem:
        return Sniffed(0.0, f"the first sample is no picture: {problem}")
    size = "x".join(map(str, seen.extent))
    return Sniffed(0.5, f"the first sample is a picture of {size} pixels with {seen.channels} channel(s)")


def form(payload: Payload, name: str = "", limits: Limits = DEFAULT_LIMITS) -> Form:
    return _guarded(lambda: _opened(payload, name, limits)[0])


def agree(forms: Sequence[Form]) -> Form:
    """Grey among RGB becomes RGB, 8 bits among 16 become 16; otherwise what most samples have decides."""
    counts = Counter(f.channels for f in forms)
    common = max(counts, key=lambda channels: (counts[channels], channels))
    channels = 3 if common == 1 and counts[3] else common
    fitting = [f for f in forms if f.channels == channels or (channels == 3 and f.channels == 1)]
    dtypes = Counter(f.dtype for f in fitting)
    if dtypes["float32"] > len(fitting) / 2:
        dtype = "float32"
    else:
        dtype = "uint16" if dtypes["uint16"] else "uint8"
    heights, widths = (sorted(f.extent[axis] for f in fitting) for axis in (0, 1))
    return Form(channels, dtype, (heights[len(heights) // 2], widths[len(widths) // 2]))


def decode(
    payload: Payload,
    form: Form | None = None,
    side: int | None = None,
    name: str = "",
    limits: Limits = DEFAULT_LIMITS,
    part: Part | None = None,
) -> np.ndarray:
    decoded = _guarded(lambda: _decode(payload, form, side, name, limits))
    return decoded if part is None else cut(decoded, part(decoded.shape[:2]))


def mask(
    payload: Payload,
    form: Form | None = None,
    side: int | None = None,
    name: str = "",
    limits: Limits = DEFAULT_LIMITS,
    part: Part | None = None,
) -> np.ndarray:
    """From a picture whose grey values, or places in its palette, are the classes of its pixels."""
    labels = _guarded(lambda: _labels(payload, name, limits))
    extent = _shrunk(labels.shape, form, side)
    places = [np.arange(out) for out in extent] if part is None else part(extent)
    near = [((at + 0.5) * (there / out)).astype(np.int64) for there, out, at in zip(labels.shape, extent, places, strict=True)]
    return cut(labels, near)


def picture(sample: np.ndarray) -> np.ndarray:
    return sample


def checks(survey: Survey) -> list[str]:
    found = []
    small, typical, large = ("x".join(map(str, extent)) for extent in (survey.smallest, survey.typical, survey.largest))
    if small != large:
        found.append(f"sizes differ: {small} to {large} pixels, typically {typical}")
    if min(survey.smallest) < 8:
        found.append(f"the smallest picture has {small} pixels, less than one patch of 8x8")
    if survey.dtype != "uint8":
        found.append(
            f"{survey.dtype} values are kept: {survey.low:g} to {survey.high:g} (percentiles 0.1 and 99.9) mean 0 to 1"
        )
    return found + empty_and_alike(survey, "pictures")


def _guarded(work: Callable[[], Result]) -> Result:
    """Decoders meet hostile bytes and raise anything at all: whatever it is, the sample is no use."""
    try:
        return work()
    except Unreadable:
        raise
    except Exception as problem:
        said = " ".join(str(problem).split())[:200]
        raise Unreadable(f"{type(problem).__name__}: {said}" if said else type(problem).__name__) from problem


def _opened(payload: Payload, name: str, limits: Limits) -> tuple[Form, Callable[[tuple[int, ...]], np.ndarray]]:
    """The header, and how to read the pixels; 8-bit files come in the extent that is asked for, others in their own."""
    if isinstance(payload, Path):
        payload = payload.read_bytes()
    if isinstance(payload, np.ndarray):
        array = _channels_last(payload)
        found, read = Form(array.shape[2], _kept(array.dtype), array.shape[:2]), lambda extent: array
    elif not payload:
        raise Unreadable("empty file")
    elif tiff.is_tiff(payload) and (file := tiff.opened(payload)) is not None:
        channels, dtype, extent = tiff.header(file)
        found, read = Form(channels, _kept(dtype), extent), lambda extent: tiff.read(file)
    else:
        picture = pillow.opened(payload, _extension(name), limits)
        found, read = Form(*pillow.header(picture)), lambda extent: pillow.read(picture, extent)
        if png.is_deep(payload):
            found = Form(png.channels(payload), "uint16", found.extent)
            read = lambda extent: pillow.upright(png.read(payload), picture)  # noqa: E731
    if min(found.extent) < 1 or found.channels < 1:
        raise Unreadable("a picture without pixels")
    if math.prod(found.extent) * max(1.0, found.channels / 4) > limits.pixels:
        size = "x".join(map(str, (*found.extent, found.channels)))
        raise Unreadable(f"{size} values are more than the limit of {limits.pixels:,} pixels")
    return found, read


def _decode(payload: Payload, wanted: Form | None, side: int | None, name: str, limits: Limits) -> np.ndarray:
    found, read = _opened(payload, name, limits)
    if wanted is not None:
        _refuse_mismatch(found, wanted)
    extent = _shrunk(found.extent, wanted, side)
    array = read(extent)
    array = array * np.uint8(255) if array.dtype == bool else array.astype(_kept(array.dtype), copy=False)
    if array.dtype == np.float32 and not np.isfinite(array).all():
        raise Unreadable("contains NaN or infinite values")
    if array.shape[:2] != extent:
        array = reduced(array, extent)
    if wanted is None:
        return array
    if wanted.dtype == "uint16" and array.dtype == np.uint8:
        array = array.astype(np.uint16) * np.uint16(257)
    return np.repeat(array, wanted.channels, axis=2) if array.shape[2] != wanted.channels else array


def _shrunk(extent: Sequence[int], wanted: Form | None, side: int | None) -> tuple[int, int]:
    """The height and width that a picture of this extent is decoded at."""
    height, width = extent
    shorter, longer = min(height, width), max(height, width)
    if side is not None:
        scale = min(1.0, side / shorter, LONGEST * side / longer)
    else:
        scale = min(1.0, LONGEST * max(wanted.extent) / longer) if wanted is not None else 1.0
    return max(1, round(height * scale)), max(1, round(width * scale))


def _labels(payload: Payload, name: str, limits: Limits) -> np.ndarray:
    """Numbers of classes `[H, W]`, those of a palette unresolved."""
    if isinstance(payload, np.ndarray):
        return as_labels(payload)
    picture = pillow.opened(payload.read_bytes() if isinstance(payload, Path) else payload, _extension(name), limits)
    if math.prod(picture.size) > limits.pixels:
        raise Unreadable(f"more than the limit of {limits.pixels:,} pixels")
    labels = np.asarray(picture)
    if labels.ndim != 2:
        raise Unreadable(f"a mask of {labels.shape[2]} channels: grey values or a palette were expected, one for each class")
    return as_labels(labels)


def _refuse_mismatch(found: Form, wanted: Form) -> None:
    if found.channels != wanted.channels and (found.channels, wanted.channels) != (1, 3):
        raise Unreadable(f"{found.channels} channel(s), the other samples have {wanted.channels}")
    if found.dtype != wanted.dtype and (found.dtype, wanted.dtype) != ("uint8", "uint16"):
        raise Unreadable(f"values are {found.dtype}, those of the other samples {wanted.dtype}")


def _kept(dtype: np.dtype) -> str:
    """The dtype that values are kept in: the smallest of three that holds them all (float64 is rounded)."""
    if dtype in (np.bool_, np.uint8):
        return "uint8"
    if dtype.kind not in "iuf":
        raise Unreadable(f"values of type {dtype} are no picture")
    return "uint16" if dtype == np.uint16 else "float32"


def _channels_last(array: np.ndarray) -> np.ndarray:
    """`[H, W]`, `[C, H, W]` or `[H, W, C]` -> `[H, W, C]`."""
    if array.ndim == 2:
        return array[..., None]
    if array.ndim != 3:
        raise Unreadable(f"an array of shape {array.shape} is no picture: [H, W], [H, W, C] or [C, H, W] was expected")
    first, middle, last = array.shape
    if last <= MOST_CHANNELS and (last < min(first, middle) or last in (1, 3, 4)):
        return array
    return array.transpose(1, 2, 0) if first <= MOST_CHANNELS and first < min(middle, last) else array


def reduced(array: np.ndarray, extent: Sequence[int]) -> np.ndarray:
    """`[H, W, C]` at another height and width, channel by channel, in floats; never beyond the values that were there."""
    size = (extent[1], extent[0])
    planes = [
        np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0))
        for plane in np.moveaxis(array, 2, 0).astype(np.float32)
    ]
    small = np.stack(planes, axis=2).clip(array.min(), array.max())
    return small if array.dtype == np.float32 else np.rint(small).astype(array.dtype)


def _extension(name: str) -> str:
    _, dot, extension = name.rpartition(".")
    return f".{extension.lower()}" if dot else ""
