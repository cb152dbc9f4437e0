"""Pictures of any number of channels that are no colours: multi-page and OME TIFFs, and arrays (`.npy`) of `[C, H, W]`.

Samples are `[C, H, W, 1]`: how many channels there are may differ from one to the next. Nothing is mixed and none is left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tacit.data.kinds.formats import planes
from tacit.data.kinds.formats.content import DEFAULT_LIMITS, as_kept, guarded, kept
from tacit.data.kinds.image import reduced
from tacit.data.kinds.kind import Form, Sniffed
from tacit.data.payload import Limits, Payload, Unreadable
from tacit.data.window import Part, cut

if TYPE_CHECKING:
    from tacit.data.survey import Survey

name = "channels"
default_encoder = "channel-vit-micro/8"
channel_names = ()
pixels = slice(1, 3)
glance = None
together = frozenset()
seeks = False

COLOURS = (1, 3, 4)
"""So many planes are taken for grey, RGB and RGB with an alpha channel, unless the file names them."""

FEW = 16
"""More planes than this are taken for a volume, unless the file names them."""

MOST = 64
"""What has more planes than this, or more than a plane has rows or columns, is a stack or has its axes in another order."""

DTYPES = ("uint8", "uint16", "float32")
"""Each holds those before it."""


def extensions() -> frozenset[str]:
    return planes.EXTENSIONS


def sniff(names: Sequence[str], first: Payload | None) -> Sniffed:
    """Names alone never say it: an ordinary picture may be a TIFF, too."""
    known = sum(Path(name).suffix.lower() in planes.EXTENSIONS for name in names)
    if first is None or (names and not known):
        return Sniffed(0.0, "no sample was looked at")
    try:
        found = _header(first, DEFAULT_LIMITS)
    except Unreadable as problem:
        return Sniffed(0.0, f"the first sample has no channels: {problem}")
    count, certainty = len(found.names), known / len(names) if names else 0.4
    if found.named and count > 1:
        return Sniffed(certainty, f"a sample that was looked at names its {count} channel(s): {', '.join(found.names[:4])}")
    if count in COLOURS:
        return Sniffed(0.0, f"{count} planes without names are grey or colour")
    if count > FEW:
        return Sniffed(0.0, f"{count} planes without names may be a volume")
    return Sniffed(certainty, f"a sample that was looked at has {count} planes, which are no colours")


def form(payload: Payload, name: str = "", limits: Limits = DEFAULT_LIMITS) -> Form:
    found = _header(payload, limits)
    return Form(1, found.dtype, (len(found.names), *found.extent), names=found.names if found.named else ())


def agree(forms: Sequence[Form]) -> Form:
    """As many channels as the most have; 8 bits among 16 become 16, all become floats where some are; names where all agree."""
    dtypes = {form.dtype for form in forms}
    dtype = max(dtypes, key=DTYPES.index)
    counts, heights, widths = zip(*(form.extent for form in forms), strict=True)
    named = {form.names for form in forms}
    middle = len(forms) // 2
    return Form(
        1,
        dtype,
        (max(counts), sorted(heights)[middle], sorted(widths)[middle]),
        names=named.pop() if len(named) == 1 else (),
    )


def decode(
    payload: Payload,
    form: Form | None = None,
    side: int | None = None,
    name: str = "",
    limits: Limits = DEFAULT_LIMITS,
    part: Part | None = None,
) -> np.ndarray:
    found = _header(payload, limits)
    if form is not None:
        _refuse_mismatch(found, form)
    array = as_kept(payload) if isinstance(payload, np.ndarray) else planes.read(payload, limits=limits)
    if array.dtype == np.float32 and not np.isfinite(array).all():
        raise Unreadable("contains NaN or infinite values")
    array = _deepened(array, form.dtype if form else found.dtype)
    height, width = found.extent
    scale = 1.0 if side is None else min(1.0, side / min(height, width))
    small = (max(1, round(height * scale)), max(1, round(width * scale)))
    if small != found.extent:
        array = np.moveaxis(reduced(np.moveaxis(array, 0, 2), small), 2, 0)
    decoded = np.ascontiguousarray(array)[..., None]
    return decoded if part is None else cut(decoded, part(decoded.shape[:3]))


def picture(sample: np.ndarray) -> np.ndarray:
    """All channels, each a grey picture, in rows of about as many as there are rows."""
    count, height, width, _ = sample.shape
    columns = math.ceil(math.sqrt(count))
    rows = -(-count // columns)
    cells = np.full((rows * columns, height, width), sample.min(), dtype=sample.dtype)
    cells[:count] = sample[..., 0]
    return cells.reshape(rows, columns, height, width).swapaxes(1, 2).reshape(rows * height, columns * width, 1)


def checks(survey: Survey) -> list[str]:
    found = []
    fewest, most = survey.smallest[0], survey.largest[0]
    if fewest != most:
        found.append(f"numbers of channels differ: {fewest} to {most}, typically {survey.typical[0]}; each keeps its own")
    small, large = ("x".join(map(str, size)) for size in (survey.smallest[1:], survey.largest[1:]))
    if small != large:
        found.append(f"sizes differ: {small} to {large} pixels")
    if survey.dtype != "uint8":
        found.append(f"{survey.dtype} values are kept: {survey.low:g} to {survey.high:g} (percentiles 0.1 and 99.9)")
    if survey.constant > 0.01:
        found.append(f"{survey.constant:.1%} of the pictures have one value everywhere: nothing can be learned from them")
    if survey.duplicates > 0.05:
        found.append(f"{survey.duplicates:.1%} have a near-duplicate: methods that contrast samples would push copies apart")
    return found


def _header(payload: Payload, limits: Limits) -> planes.Planes:
    if isinstance(payload, np.ndarray):
        found = _array_header(payload)
    else:
        found = planes.header(payload, limits)
    if len(found.names) > min(MOST, *found.extent):
        size = "x".join(map(str, found.extent))
        raise Unreadable(f"{len(found.names)} channels of {size} pixels: [C, H, W] was expected, of at most {MOST} channels")
    return found


@guarded
def _array_header(array: np.ndarray) -> planes.Planes:
    if array.ndim != 3 or not array.size:
        raise Unreadable(f"an array of shape {array.shape} is no picture of channels: [C, H, W] was expected")
    count, height, width = array.shape
    return planes.Planes(("",) * count, kept(array.dtype), (height, width))


def _refuse_mismatch(found: planes.Planes, wanted: Form) -> None:
    if len(found.names) > wanted.extent[0]:
        raise Unreadable(f"{len(found.names)} channels, the other samples have at most {wanted.extent[0]}")
    if wanted.names and found.named and found.names != wanted.names:
        raise Unreadable(f"channels {', '.join(found.names)}; those of the other samples are {', '.join(wanted.names)}")
    if DTYPES.index(found.dtype) > DTYPES.index(wanted.dtype):
        raise Unreadable(f"values are {found.dtype}, those of the other samples {wanted.dtype}")


def _deepened(array: np.ndarray, dtype: str) -> np.ndarray:
    if (str(array.dtype), dtype) == ("uint8", "uint16"):
        return array.astype(np.uint16) * np.uint16(257)
    return array.astype(dtype, copy=False)
