"""Pictures of any number of channels that are no colours: multi-page and OME TIFFs, Zarr, arrays (`.npy`) of `[C, H, W]`, and
pictures of which every channel is a file of its own.

Samples are `[C, H, W, 1]`: how many channels there are may differ from one to the next. Nothing is mixed and none is left out.
Where channels have names, each has its own place: one that a sample does not have is zero there, or cut off at the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tacit.data.kinds import image
from tacit.data.kinds.formats import beside, planes
from tacit.data.kinds.formats.content import DEFAULT_LIMITS, as_kept, guarded, kept
from tacit.data.kinds.kind import GLANCE, Form, Sniffed, empty_and_alike, ending, named, shrunk
from tacit.data.payload import Limits, Payload, Unreadable, is_store
from tacit.data.window import Part, cut

if TYPE_CHECKING:
    from tacit.data.survey import Survey

name = "channels"
default_encoder = "channel-vit-micro/8"
channel_names = ()
pixels = slice(1, 3)
unit = "pixels"
glance = None
mask = None
together = frozenset()
seeks = True

COLOURS = (1, 3, 4)
"""So many planes are taken for grey, RGB and RGB with an alpha channel, unless the file names them."""

FEW = 16
"""More planes than this are taken for a volume, unless the file names them."""

MOST = 64
"""What has more planes than this, or more than a plane has rows or columns, is a stack or has its axes in another order."""

DTYPES = ("uint8", "uint16", "float32")
"""Each holds those before it."""


def extensions() -> frozenset[str]:
    return planes.EXTENSIONS | image.extensions()


def sniff(names: Sequence[str], first: Payload | None) -> Sniffed:
    """Names alone never say it: an ordinary picture may be a TIFF, too."""
    known = sum(ending(name) in planes.EXTENSIONS for name in names)
    pictures = [each for each in names if ending(each) in extensions()]
    parts = [part for each in pictures if (part := beside.channel(each))]
    said = beside.in_order({part.name for part in parts})
    apart = len(said) > 1 and len(parts) == len(pictures)
    if first is None:
        return Sniffed(0.1 if known or apart else 0.0, "no sample was looked at")
    try:
        if apart and isinstance(first, Path) and len(_separate(first, _own(first, names), GLANCE)) > 1:
            why = f"each file is one channel of a picture, by their names: {', '.join(said[:4])}"
            return Sniffed(len(pictures) / len(names), why)
        if names and not known:
            return Sniffed(0.0, "no file has the extension of a picture of channels")
        found = _opened(first, DEFAULT_LIMITS)[0]
    except Unreadable as problem:
        return Sniffed(0.0, f"the first sample has no channels: {problem}")
    count, certainty = len(found.names), known / len(names) if names else 0.4
    if found.named and count > 1:
        return Sniffed(certainty, f"a sample that was looked at names its {count} channel(s): {', '.join(found.names[:4])}")
    if count in COLOURS and not is_store(first):
        return Sniffed(0.0, f"{count} planes without names are grey or colour")
    if count > FEW:
        return Sniffed(0.0, f"{count} planes without names may be a volume")
    return Sniffed(certainty, f"a sample that was looked at has {count} planes, which are no colours")


def gather(names: Sequence[str], first: Payload) -> list[str | None]:
    """Files that differ in nothing but their channel are one sample, unless each has several channels."""
    single = isinstance(first, Path) and _is_single(first)
    found: list[str | None] = []
    for each in names:
        part = beside.channel(each) if single else None
        alone = each if ending(each) in planes.EXTENSIONS else None
        found.append(part.sample if part else alone)
    return found


def form(payload: Payload, name: str = "", limits: Limits = DEFAULT_LIMITS) -> Form:
    if separate := _separate(payload, name, limits):
        found = _described(separate)
    else:
        found = _opened(payload, limits)[0]
    return Form(1, found.dtype, (len(found.names), *found.extent), names=found.names if found.named else ())


def agree(forms: Sequence[Form]) -> Form:
    """As many channels as the most have; 8 bits among 16 become 16, all become floats where some are.

    Names are those of the sample that names the most, where it has all that others name, in their order.
    """
    dtypes = {form.dtype for form in forms}
    dtype = max(dtypes, key=DTYPES.index)
    counts, heights, widths = zip(*(form.extent for form in forms), strict=True)
    names = max((form.names for form in forms), key=len)
    fits = len(names) == max(counts) and all(_is_part(form.names, names) for form in forms)
    middle = len(forms) // 2
    return Form(
        1,
        dtype,
        (max(counts), sorted(heights)[middle], sorted(widths)[middle]),
        names=names if fits else (),
    )


def decode(
    payload: Payload,
    form: Form | None = None,
    side: int | None = None,
    name: str = "",
    limits: Limits = DEFAULT_LIMITS,
    part: Part | None = None,
) -> np.ndarray:
    if separate := _separate(payload, name, limits):
        found, read = _described(separate), partial(_stacked, separate)
    else:
        found, read = _opened(payload, limits)
    if form is not None:
        _refuse_mismatch(found, form)
    array = read()
    if array.dtype == np.float32 and not np.isfinite(array).all():
        raise Unreadable("contains NaN or infinite values")
    array = _deepened(array, form.dtype if form else found.dtype)
    small = shrunk("channels", array.shape, side)[1:]
    if small != found.extent:
        array = np.moveaxis(image.reduced(np.moveaxis(array, 0, 2), small), 2, 0)
    if form is not None and found.named and form.names not in ((), found.names):
        array = _placed(array, found.names, form.names)
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


def traits(form: Form, sample: np.ndarray, common: Form) -> dict[str, str]:
    """Which channels are missing, and which have one value everywhere while others have more."""
    names = common.names or tuple(map(str, range(1, len(sample) + 1)))
    missing = [each for each in common.names if form.names and each not in form.names]
    flat = (sample == sample[:, :1, :1]).all(axis=(1, 2, 3))
    plain = [each for each, even in zip(names, flat, strict=False) if even and each not in missing]
    there = {"missing": missing, "constant": plain if len(plain) + len(missing) < len(names) else []}
    return {trait: ", ".join(each) for trait, each in there.items() if each}


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
    for trait, says in (("missing", "missing"), ("constant", "one value everywhere")):
        told = sorted(survey.traits.get(trait, {}).items(), key=lambda item: -len(item[1]))
        found += [f"channel {which}: {says} in {len(files)} picture(s): {named(files)}" for which, files in told[:5]]
    return found + empty_and_alike(survey, "pictures")


@dataclass(frozen=True)
class _One:
    """A file of one channel."""

    content: bytes
    form: Form


@guarded
def _separate(payload: Payload, name: str, limits: Limits) -> dict[str, _One]:
    """The files of a picture of which each has one channel, by channel; empty where `payload` is no such file."""
    if not isinstance(payload, Path) or beside.channel(name or payload.name) is None or not _is_single(payload):
        return {}
    found = {}
    for channel, path in beside.channels(payload, name).items():
        content = beside.content(path, limits)
        found[channel] = one = _One(content, image.form(content, path.name, limits))
        if one.form.channels != 1:
            raise Unreadable(f"{path.name} has {one.form.channels} channels: a file of one channel was expected")
    if len(sizes := {one.form.extent for one in found.values()}) > 1:
        raise Unreadable(
            f"channels of one picture differ in size: {' and '.join('x'.join(map(str, s)) for s in sorted(sizes))}"
        )
    return found


def _is_single(path: Path) -> bool:
    """Whether a file has one channel, or is no file of several at all."""
    if is_store(path):
        return False
    if path.suffix.lower() not in planes.EXTENSIONS:
        return True
    try:
        return len(planes.header(path).names) == 1
    except Unreadable:
        return False


def _described(separate: dict[str, _One]) -> planes.Planes:
    forms = [one.form for one in separate.values()]
    height, width = forms[0].extent
    return planes.Planes(tuple(separate), max((form.dtype for form in forms), key=DTYPES.index), (height, width), named=True)


def _stacked(separate: dict[str, _One]) -> np.ndarray:
    dtype = _described(separate).dtype
    return np.stack([_deepened(image.decode(one.content)[..., 0], dtype) for one in separate.values()])


def _own(path: Path, names: Sequence[str]) -> str:
    """What the data itself calls a file."""
    whole = path.as_posix()
    return next((each for each in names if whole.endswith(each)), path.name)


def _is_part(some: Sequence[str], names: Sequence[str]) -> bool:
    """Whether these are among the names, in the same order."""
    left = iter(names)
    return all(each in left for each in some)


def _placed(array: np.ndarray, names: Sequence[str], places: Sequence[str]) -> np.ndarray:
    """Channels at the places of their names, zeros between them."""
    at = [places.index(each) for each in names]
    placed = np.zeros((at[-1] + 1, *array.shape[1:]), dtype=array.dtype)
    placed[at] = array
    return placed


def _opened(payload: Payload, limits: Limits) -> tuple[planes.Planes, Callable[[], np.ndarray]]:
    """What a picture is, and what reads all of it."""
    if isinstance(payload, np.ndarray):
        found, read = _array_header(payload), partial(as_kept, payload)
    else:
        found, of_channels = planes.seen(payload, limits)
        read = partial(of_channels, None)
    if len(found.names) > min(MOST, *found.extent):
        size = "x".join(map(str, found.extent))
        raise Unreadable(f"{len(found.names)} channels of {size} pixels: [C, H, W] was expected, of at most {MOST} channels")
    return found, read


@guarded
def _array_header(array: np.ndarray) -> planes.Planes:
    if array.ndim != 3 or not array.size:
        raise Unreadable(f"an array of shape {array.shape} is no picture of channels: [C, H, W] was expected")
    count, height, width = array.shape
    return planes.Planes(("",) * count, kept(array.dtype), (height, width))


def _refuse_mismatch(found: planes.Planes, wanted: Form) -> None:
    if len(found.names) > wanted.extent[0]:
        raise Unreadable(f"{len(found.names)} channels, the other samples have at most {wanted.extent[0]}")
    if wanted.names and found.named and not _is_part(found.names, wanted.names):
        raise Unreadable(f"channels {', '.join(found.names)}; those of the other samples are {', '.join(wanted.names)}")
    if DTYPES.index(found.dtype) > DTYPES.index(wanted.dtype):
        raise Unreadable(f"values are {found.dtype}, those of the other samples {wanted.dtype}")


def _deepened(array: np.ndarray, dtype: str) -> np.ndarray:
    if (str(array.dtype), dtype) == ("uint8", "uint16"):
        return array.astype(np.uint16) * np.uint16(257)
    return array.astype(dtype, copy=False)
