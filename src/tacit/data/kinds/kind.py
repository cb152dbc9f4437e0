"""The contract of a kind of data, and the table of kinds.

A kind is a module with the names below; CONTRIBUTING.md says how to add one. Nothing else in tacit knows a file format.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
from PIL import Image

from tacit.core.errors import TacitError, nearest
from tacit.data.payload import STORE, Limits, Payload, Unreadable, in_store
from tacit.data.window import Part, Window

if TYPE_CHECKING:
    from tacit.data.survey import Survey

KINDS = {
    "channels": "tacit.data.kinds.channels",
    "video": "tacit.data.kinds.video",
    "image": "tacit.data.kinds.image",
    "pair": "tacit.data.kinds.pair",
    "points": "tacit.data.kinds.points",
    "volume": "tacit.data.kinds.volume",
}

ALSO = {"channels": "image", "pair": "image"}
"""Kinds whose samples another kind reads, too: an image and something beside it, an image whose channels are no colours."""

GLANCED_AT = 8
"""So many files are looked at where names leave the kind open, none of them larger than `GLANCE` allows."""

GLANCE = Limits(file_bytes=1 << 26, whole=False)


@dataclass(frozen=True)
class Form:
    """What a sample looks like by its header; for a whole collection, what all samples are brought to.

    Attributes:
        channels: how many.
        dtype: `uint8`, `uint16` or `float32`.
        extent: height and width (for volumes also depth, first), in pixels.
        spacing: millimetres between pixels along each axis; empty where nobody says.
        names: of the channels, where they say what they are.
        rate: frames per second; 0 where nobody says, as for a whole collection.
        axes: where the axes of a volume's file point, as `LPS`; empty where nobody says.
    """

    channels: int
    dtype: str
    extent: tuple[int, ...]
    spacing: tuple[float, ...] = ()
    names: tuple[str, ...] = ()
    rate: float = field(default=0.0, compare=False)
    axes: str = field(default="", compare=False)


@dataclass(frozen=True)
class Sniffed:
    """How sure a kind is that data is its own: certainty in `[0, 1]`, and why in a few words."""

    certainty: float
    why: str


class Kind(Protocol):
    """What a module in `data/kinds/` offers. Decoded samples are `[*extent, C]`."""

    name: str
    default_encoder: str
    channel_names: tuple[str, ...]
    """What channels are called where there are as many as this."""
    pixels: slice
    """Which axes of an extent are lengths in pixels, that decoding may shrink together: not frames, nor points."""
    unit: str
    """What a sample is made of, in a word: `pixels`, `voxels`, `points`."""
    together: frozenset[str]
    """Extensions of files that make up one sample with all others like them in their folder."""
    gather: Callable[[Sequence[str], Payload], Sequence[str | None]] | None
    """From the paths of files on this machine, and one of the files, to the sample that each is part of: equal strings are one
    sample, None lies beside samples. Without this, every file is a sample."""
    seeks: bool
    """Whether samples are read in parts: a local file is then handed over by its path."""
    glance: Window | None
    """What of a sample is decoded to know what it looks like; None for all of it."""

    def extensions(self) -> frozenset[str]:
        """File name extensions of this kind, lower case, with the dot."""
        ...

    def sniff(self, names: Sequence[str], first: Payload | None) -> Sniffed:
        """Is data with these file names (a few of them) and this first sample of this kind?"""
        ...

    def form(self, payload: Payload, name: str = "", limits: Limits = ...) -> Form:
        """What the sample looks like, from its header alone. Raises `Unreadable`."""
        ...

    def agree(self, forms: Sequence[Form]) -> Form:
        """The one form that all samples are brought to, given the forms of some."""
        ...

    def decode(
        self,
        payload: Payload,
        form: Form | None = None,
        side: int | None = None,
        name: str = "",
        limits: Limits = ...,
        part: Part | None = None,
    ) -> np.ndarray:
        """`[*extent, C]` with the channels and dtype of `form`, shrunk so that the shorter side is at most `side`.

        No axis is empty. With `part`, only what it wants of the sample. Raises `Unreadable`, and nothing else, whatever the
        bytes are.
        """
        ...

    mask: Callable[..., np.ndarray] | None
    """Labels of a sample's places from a file of them, int64 `[*extent]`; with the arguments of `decode`, those of the places
    that it gives, each from the nearest in the file. None where no such labels are known."""

    def picture(self, sample: np.ndarray) -> np.ndarray:
        """A decoded sample as one picture `[H, W, C]`, in the same units, or in `[0, 1]` where it has no pixels.

        For thumbnails, and to tell copies, emptiness and samples without contrast by.
        """
        ...

    traits: Callable[[Form, np.ndarray, Form], dict[str, str]] | None
    """What `checks` want to know of every single sample, from its own form, what `glance` shows of it and the form of all:
    a few words by the name of the trait. None where there is nothing."""

    def checks(self, survey: Survey) -> list[str]:
        """What `tacit doctor` should tell the owner of such data, one line each."""
        ...


def kind_named(name: str) -> Kind:
    """The kind of that name; a `TacitError` with the nearest name where there is none."""
    if name not in KINDS:
        raise TacitError(f"unknown kind of data '{name}': kinds are {', '.join(KINDS)}{nearest(name, KINDS)}")
    return cast(Kind, import_module(KINDS[name]))


def as_taken(kind: str, taken: Sequence[str]) -> str:
    """What samples of this kind are to a method that takes these: that kind where it does, else one that may look so."""
    alike = (other for other in taken if ALSO.get(other) == kind or ALSO.get(kind) == other)
    return kind if kind in taken else next(alike, kind)


def sides(kind: str, extent: Sequence[int]) -> tuple[int, ...]:
    """The lengths in pixels of an extent: height and width of an image; none of a point cloud."""
    return tuple(extent[kind_named(kind).pixels])


def shrunk(kind: str, extent: Sequence[int], side: int | None) -> tuple[int, ...]:
    """What decoding makes of an extent when the shorter side may have `side` pixels."""
    lengths = sides(kind, extent)
    scale = 1.0 if side is None or not lengths else min(1.0, side / min(lengths))
    where = range(*kind_named(kind).pixels.indices(len(extent)))
    return tuple(max(1, round(length * scale)) if axis in where else length for axis, length in enumerate(extent))


def useful_side(kind: str, view: int, extent: Sequence[int]) -> int | None:
    """What to decode samples of this extent at for views of `view` pixels: crops can use one and a half times as many.

    None where the samples are no larger than that: then they stay as they are.
    """
    side = -(-3 * view // 2)
    return side if min(sides(kind, extent), default=0) > side else None


@cache
def endings() -> tuple[str, ...]:
    """What names of samples of any kind end in, in small letters."""
    return tuple(sorted({extension for kind in KINDS for extension in kind_named(kind).extensions()}))


def ending(name: str) -> str:
    """The extension of a file's name, in small letters: `.tif`; for `plate.zarr/A/1/0` that of the folder.

    For very many names a `Path` of each would take too long.
    """
    found = os.path.splitext(name)[1].lower()
    return STORE if not found and in_store(name) else found


def ends_in(name: str, extensions: Collection[str]) -> bool:
    """Whether a name ends in one of these, which may be `.nii.gz`, too, or is that of something in such a folder."""
    return name.lower().endswith(tuple(extensions)) or ending(name) in extensions


def empty_and_alike(survey: Survey, what: str) -> list[str]:
    """What `checks` of any kind have to say of samples without content and of copies; `what` samples are called."""
    found = []
    if survey.constant > 0.01:
        found.append(f"{survey.constant:.1%} of the {what} have one value everywhere: nothing can be learned from them")
    if survey.duplicates > 0.05:
        found.append(f"{survey.duplicates:.1%} have a near-duplicate: methods that contrast samples would push copies apart")
    return found


def differ(survey: Survey, trait: str, what: str) -> str:
    """A line that says which values of a trait there are, and which files have the rarer ones; empty where there is one."""
    files = sorted(survey.traits.get(trait, {}).items(), key=lambda item: (-len(item[1]), item[0]))
    if len(files) < 2:
        return ""
    rare = [f"{value} ({named(paths)})" for value, paths in files[1:4]]
    more = f" and {len(files) - 4} more" if len(files) > 4 else ""
    return f"{what} differ: {files[0][0]} ({len(files[0][1])} of them), {', '.join(rare)}{more}"


def named(paths: Sequence[str]) -> str:
    """Files by name, the first few of them."""
    return ", ".join(paths[:3]) + (f" and {len(paths) - 3:,} more" if len(paths) > 3 else "")


def thumbnail(kind: Kind, sample: np.ndarray, side: int, low: float = 0.0, high: float = 255.0) -> bytes:
    """A decoded sample as a small PNG; `low` and `high` are the values shown as black and white."""
    picture = kind.picture(sample)
    shown = picture[..., :3] if picture.shape[-1] >= 3 else picture[..., :1]
    if shown.dtype != np.uint8 or (low, high) != (0.0, 255.0):
        scaled = (shown.astype(np.float32) - low) * (255.0 / max(high - low, 1e-12))
        shown = np.nan_to_num(scaled).clip(0, 255).astype(np.uint8)
    small = Image.fromarray(np.ascontiguousarray(shown[..., 0] if shown.shape[-1] == 1 else shown))
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    small.save(file, "PNG")
    return file.getvalue()


def choose(names: Sequence[str], first: Payload | None) -> tuple[Kind | None, str]:
    """The kind that is surest of this data, and why; None where none recognises anything."""
    return _surest([(kind, kind.sniff(names, first)) for kind in map(kind_named, KINDS)])


def recognised(names: Sequence[str], read: Callable[[int, Limits], Payload]) -> tuple[Kind | None, str]:
    """As `choose`, by the names of files; where several kinds have such names, a few of those files are looked at, too.

    Args:
        names: of samples.
        read: gives the sample of the name at that place; may raise `Unreadable`.
    """
    kinds = [kind_named(kind) for kind in KINDS]
    judged = [(kind, kind.sniff(names, None)) for kind in kinds]
    extensions = {kind.extensions() for kind, sniffed in judged if sniffed.certainty > 0}
    endings = map(ending, names)
    open_to = [sum(one in each for each in extensions) for one in endings]
    contested = [place for place, count in enumerate(open_to) if count > 1]
    for place in contested[:: -(-len(contested) // GLANCED_AT) or 1]:
        try:
            first = read(place, GLANCE)
            if isinstance(first, Path) and first.stat().st_size > GLANCE.file_bytes:
                continue
        except (Unreadable, OSError):
            continue
        able = [kind for kind in kinds if ending(names[place]) in kind.extensions()]
        judged += [(kind, kind.sniff(names, first)) for kind in able]
    return _surest(judged)


def _surest(judged: Sequence[tuple[Kind, Sniffed]]) -> tuple[Kind | None, str]:
    """Of two that are as sure, the one that stands first in `KINDS`: what looks into files knows more than names."""
    order = list(KINDS)
    kind, best = max(judged, key=lambda pair: (pair[1].certainty, -order.index(pair[0].name)))
    return (kind, best.why) if best.certainty > 0 else (None, best.why)
