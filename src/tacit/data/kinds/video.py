"""Films: frames are RGB in 8 bits, read by their numbers, without decoding what lies far from the ones that are wanted.

A film may also lie as a folder of numbered pictures; the first of them then stands for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from tacit.data.kinds import image
from tacit.data.kinds.formats import beside, video
from tacit.data.kinds.formats.content import DEFAULT_LIMITS, guarded, refuse_large
from tacit.data.kinds.kind import GLANCE, GLANCED_AT, Form, Sniffed, differ, empty_and_alike, ending, named, shrunk
from tacit.data.payload import Limits, Payload, Unreadable
from tacit.data.window import Part, Spread

if TYPE_CHECKING:
    from tacit.data.survey import Survey

name = "video"
default_encoder = "r3d-mini"
channel_names = ("red", "green", "blue")
pixels = slice(1, 3)
unit = "pixels"
glance = Spread(8)
mask = None
together = frozenset()
seeks = True

SHOWN = 3
"""So many frames stand for a film in a picture of it."""

SHORT = 8
"""Fewer frames than this hold hardly any motion."""


SLOW = 20
"""Above so many frames per second, containers that count in milliseconds do not tell tenths of one."""

SURE = 8
"""Folders with fewer numbered pictures than this are not taken for films unless somebody says so."""

NEAR = 0.5
"""Frames that follow each other differ by less than this share of what frames farther apart differ by. Where hardly anything
differs there is no telling: dark pictures in folders of their classes are no films."""

STILL = 2.0
"""Where nothing in a film changes by so many levels of 255, nothing moves."""


def extensions() -> frozenset[str]:
    return video.EXTENSIONS | image.extensions()


def sniff(names: Sequence[str], first: Payload | None) -> Sniffed:
    known = sum(ending(name) in video.EXTENSIONS - {".gif"} for name in names)
    if known:
        return Sniffed(known / len(names), f"{known} of {len(names)} names looked at have the extension of a film")
    pictures = [each for each in names if _is_picture(each)]
    if pictures and beside.are_frames(pictures):
        if not isinstance(first, Path):
            return Sniffed(0.1, "numbered pictures, perhaps frames")
        if _are_films(first, pictures):
            why = "every folder looked at holds numbered pictures of one size that change little from one to the next"
            return Sniffed(len(pictures) / len(names), why)
    if isinstance(first, np.ndarray) and first.ndim == 4 and first.shape[-1] in (1, 3):
        return Sniffed(0.6, f"the first sample is an array of {'x'.join(map(str, first.shape))}: frames of a film")
    if isinstance(first, bytes) and _begins_as_film(first):
        return Sniffed(0.7, "the first sample begins as a film does")
    return Sniffed(0.0, "no name has the extension of a film")


def gather(names: Sequence[str], first: Payload) -> list[str | None]:
    """Numbered pictures of a folder are one film. Pictures that have no number, or lie beside films, are none."""
    holding = {each.rpartition("/")[0] for each in names if not _is_picture(each)}
    films = [beside.frame(each) if _is_picture(each) else None for each in names]
    counts = Counter(found.film for found in films if found)
    gathered: list[str | None] = []
    for each, found in zip(names, films, strict=True):
        if found and counts[found.film] > 1 and found.film[0] not in holding:
            gathered.append("\0".join(found.film))
        else:
            gathered.append(None if _is_picture(each) else each)
    return gathered


def form(payload: Payload, name: str = "", limits: Limits = DEFAULT_LIMITS) -> Form:
    if isinstance(payload, np.ndarray):
        return Form(3, "uint8", _frames(payload).shape[:3])
    if files := _files(payload, name):
        return Form(3, "uint8", (len(files), *_picture_form(files[0], limits).extent))
    film = video.header(payload, limits)
    return Form(3, "uint8", (len(film.times), *film.extent), rate=film.fps)


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
    film, files = None, _files(payload, name)
    if isinstance(payload, np.ndarray):
        extent = _frames(payload).shape[:3]
    elif files:
        extent = (len(files), *_picture_form(files[0], limits).extent)
    else:
        film = video.header(payload, limits)
        extent = (len(film.times), *film.extent)
    wanted = np.arange(extent[0]) if part is None else part(extent)[0]
    small = shrunk("video", extent, side)[1:]
    refuse_large((len(wanted), *small, 3), 1, limits)
    if isinstance(payload, np.ndarray):
        frames = _frames(payload)[wanted]
    elif files:
        return _pictures(files, wanted, extent[1:], small, limits)
    else:
        frames = video.read(payload, wanted, film, limits)
    return frames if frames.shape[1:3] == small else _resized(frames, small)


def picture(sample: np.ndarray) -> np.ndarray:
    shown = np.unique(np.linspace(0, len(sample) - 1, SHOWN).round().astype(int))
    return np.concatenate(list(sample[shown]), axis=1)


def traits(form: Form, sample: np.ndarray, common: Form) -> dict[str, str]:
    """Frames per second, and whether anything moves: whether light comes or goes anywhere, in a place of some size."""
    side = max(1, min(8, *(length // 4 for length in sample.shape[1:3])))
    rows, columns = (length // side for length in sample.shape[1:3])
    blocks = sample[:, : rows * side, : columns * side].reshape(len(sample), rows, side, columns, side, -1).mean((2, 4))
    still = len(sample) > 1 and np.abs(np.diff(blocks, axis=0)).max() < STILL
    return ({"rate": f"{round(form.rate, form.rate < SLOW):g}"} if form.rate else {}) | ({"motion": "none"} if still else {})


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
    if rates := differ(survey, "rate", "frames per second"):
        found.append(f"{rates}: a clip shows more or less time")
    if still := survey.traits.get("motion", {}).get("none"):
        found.append(f"nothing moves in {len(still)} film(s), from which no motion can be learned: {named(still)}")
    return found + empty_and_alike(survey, "films")


@cache
def _still() -> frozenset[str]:
    return image.extensions() - video.EXTENSIONS


def _is_picture(name: str) -> bool:
    return ending(name) in _still()


def _files(payload: Payload, name: str) -> list[Path]:
    """The frames of a film that lies as numbered pictures; empty where it is one file, or an array."""
    if isinstance(payload, np.ndarray) or not _is_picture(str(payload) if isinstance(payload, Path) else name):
        return []
    if not isinstance(payload, Path):
        raise Unreadable("frames in files of their own are read from their folder on this machine: copy it here")
    files = beside.frames(payload)
    if len(files) < 2:
        raise Unreadable("a picture is no film: several were expected, numbered, in a folder for each film")
    return files


def _picture_form(file: Path, limits: Limits) -> Form:
    return image.form(beside.content(file, limits), file.name, limits)


def _pictures(
    files: list[Path], wanted: np.ndarray, extent: tuple[int, ...], small: tuple[int, ...], limits: Limits
) -> np.ndarray:
    """These frames `[n, *small, 3]`; each is read once."""
    frames = np.empty((len(wanted), *small, 3), dtype=np.uint8)
    for place in np.unique(wanted).tolist():
        content, named = beside.content(files[place], limits), files[place].name
        if (found := image.form(content, named, limits).extent) != extent:
            size, first = ("x".join(map(str, sides)) for sides in (found, extent))
            raise Unreadable(f"frames differ in size: {named} has {size} pixels, the first one {first}")
        decoded = image.decode(content, Form(3, "uint8", extent), min(small), named, limits)
        frames[wanted == place] = decoded if decoded.shape[:2] == small else _resized(decoded[None], small)[0]
    return frames


def _are_films(first: Path, names: Sequence[str]) -> bool:
    """Whether the folders of some of these pictures hold films; `first` is one of them, which tells where they lie."""
    whole = first.as_posix()
    root = next((whole.removesuffix(each) for each in names if whole.endswith(each)), None)
    folders = list({each.rpartition("/")[0]: each for each in names}.values())
    some = folders[:: -(-len(folders) // GLANCED_AT)]
    return root is not None and all(_is_continuous(root + each, Path(root + each).parent.stat().st_mtime_ns) for each in some)


@lru_cache(maxsize=4 * GLANCED_AT)
def _is_continuous(path: str, changed: int) -> bool:
    """Whether the pictures beside this one have consecutive numbers and one size, and change little from one to the next."""
    try:
        files = beside.frames(Path(path))
        numbers = [found.number for file in files if (found := beside.frame(file.name))]
        if len(files) < SURE or numbers != list(range(numbers[0], numbers[0] + len(files))):
            return False
        if len(files) < sum(map(_is_picture, beside.listed(Path(path).parent))):
            return False
        places = np.array([len(files) // 6, len(files) // 2, len(files) * 5 // 6])
        size = _picture_form(files[0], GLANCE).extent
        here, after = (
            _pictures(files, at, size, shrunk("video", (1, *size), 16)[1:], GLANCE).astype(np.float32)
            for at in (places, places + 1)
        )
    except (Unreadable, OSError):
        return False
    near = np.abs(here - after).mean()
    far = np.mean([np.abs(here[i] - here[j]).mean() for i, j in ((0, 1), (0, 2), (1, 2))])
    return bool(near < NEAR * far)


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


def _resized(frames: np.ndarray, size: Sequence[int]) -> np.ndarray:
    height, width = size
    small = np.empty((len(frames), height, width, 3), dtype=np.uint8)
    for to, frame in zip(small, frames, strict=True):
        to[:] = np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BOX, reducing_gap=2.0))
    return small
