"""Films: frames are RGB in 8 bits, read by their numbers, without decoding what lies far from the ones that are wanted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from tacit.data.kinds.formats import video
from tacit.data.kinds.formats.content import DEFAULT_LIMITS, guarded, refuse_large
from tacit.data.kinds.kind import Form, Sniffed
from tacit.data.payload import Limits, Payload, Unreadable
from tacit.data.window import Part, Spread

if TYPE_CHECKING:
    from tacit.data.survey import Survey

name = "video"
default_encoder = "r3d-mini"
channel_names = ("red", "green", "blue")
pixels = slice(1, 3)
glance = Spread(8)
together = frozenset()
seeks = True

SHOWN = 3
"""So many frames stand for a film in a picture of it."""

SHORT = 8
"""Fewer frames than this hold hardly any motion."""


def extensions() -> frozenset[str]:
    return video.EXTENSIONS


def sniff(names: Sequence[str], first: Payload | None) -> Sniffed:
    known = sum(Path(name).suffix.lower() in video.EXTENSIONS - {".gif"} for name in names)
    if known:
        return Sniffed(known / len(names), f"{known} of {len(names)} names looked at have the extension of a film")
    if isinstance(first, np.ndarray) and first.ndim == 4 and first.shape[-1] in (1, 3):
        return Sniffed(0.6, f"the first sample is an array of {'x'.join(map(str, first.shape))}: frames of a film")
    if isinstance(first, bytes) and _begins_as_film(first):
        return Sniffed(0.7, "the first sample begins as a film does")
    return Sniffed(0.0, "no name has the extension of a film")


def form(payload: Payload, name: str = "", limits: Limits = DEFAULT_LIMITS) -> Form:
    if isinstance(payload, np.ndarray):
        return Form(3, "uint8", _frames(payload).shape[:3])
    film = video.header(payload, limits)
    return Form(3, "uint8", (len(film.times), *film.extent))


def agree(forms: Sequence[Form]) -> Form:
    extents = np.array([form.extent for form in forms])
    return Form(3, "uint8", tuple(np.median(extents, axis=0).astype(int).tolist()))


def decode(
    payload: Payload,
    form: Form | None = None,
    side: int | None = None,
    name: str = "",
    limits: Limits = DEFAULT_LIMITS,
    part: Part | None = None,
) -> np.ndarray:
    if isinstance(payload, np.ndarray):
        film, extent = None, _frames(payload).shape[:3]
    else:
        film = video.header(payload, limits)
        extent = (len(film.times), *film.extent)
    wanted = np.arange(extent[0]) if part is None else part(extent)[0]
    height, width = extent[1:]
    scale = 1.0 if side is None else min(1.0, side / min(height, width))
    small = (max(1, round(height * scale)), max(1, round(width * scale)))
    refuse_large((len(wanted), *small, 3), 1, limits)
    if isinstance(payload, np.ndarray):
        frames = _frames(payload)[wanted]
    else:
        frames = video.read(payload, wanted, film, limits)
    return frames if frames.shape[1:3] == small else _resized(frames, small)


def picture(sample: np.ndarray) -> np.ndarray:
    shown = np.unique(np.linspace(0, len(sample) - 1, SHOWN).round().astype(int))
    return np.concatenate(list(sample[shown]), axis=1)


def checks(survey: Survey) -> list[str]:
    found = []
    shortest, longest = survey.smallest[0], survey.largest[0]
    if shortest != longest:
        found.append(f"lengths differ: {shortest} to {longest} frames, typically {survey.typical[0]}")
    if shortest < SHORT:
        found.append(f"the shortest film has {shortest} frame(s): clips repeat frames where there are too few")
    small, large = ("x".join(map(str, size)) for size in (survey.smallest[1:], survey.largest[1:]))
    if small != large:
        found.append(f"sizes differ: {small} to {large} pixels")
    if survey.constant > 0.01:
        found.append(f"{survey.constant:.1%} of the films have one value everywhere: nothing can be learned from them")
    if survey.duplicates > 0.05:
        found.append(f"{survey.duplicates:.1%} have a near-duplicate: methods that contrast samples would push copies apart")
    return found


def _begins_as_film(content: bytes) -> bool:
    """Matroska, AVI, or MP4 and its like, but for the pictures that are held in such files."""
    pictures = (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1", b"jp2 ")
    mp4 = content[4:8] == b"ftyp" and content[8:12] not in pictures
    return mp4 or content[:4] == b"\x1aE\xdf\xa3" or (content[:4] == b"RIFF" and content[8:12] == b"AVI ")


@guarded
def _frames(array: np.ndarray) -> np.ndarray:
    """`[T, H, W]`, `[T, H, W, 1]` or `[T, H, W, 3]` in 8 bits -> `[T, H, W, 3]`."""
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4 or array.shape[-1] not in (1, 3) or array.dtype != np.uint8 or not array.size:
        raise Unreadable(f"an array of {array.dtype} of shape {array.shape} is no film: uint8 [T, H, W, 3] was expected")
    return np.broadcast_to(array, (*array.shape[:3], 3))


def _resized(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    height, width = size
    small = np.empty((len(frames), height, width, 3), dtype=np.uint8)
    for to, frame in zip(small, frames, strict=True):
        to[:] = np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BOX, reducing_gap=2.0))
    return small
