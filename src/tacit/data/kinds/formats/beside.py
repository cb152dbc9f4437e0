"""Files that lie beside one another and are one sample: the numbered frames of a film, a file for each channel of a picture.

Everything is told by names, so that it needs no more than a listing of folders.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from tacit.data.kinds.formats.content import guarded, length, opened
from tacit.data.payload import Limits, Unreadable

NUMBERED = re.compile(r"^(.*?)(\d+)(\D*)$", re.DOTALL)
"""A name without its extension: what stands before its last number, that number, and what follows."""

STAINS = (
    r"dapi|hoechst(?:[ _-]?\d{5})?|[a-z]{0,2}[gry]fp|e?[cb]fp|mcherry|tdtomato|fitc|tritc|texas[ _-]?red|cy[357](?:[._-]?5)?|"
    r"(?:alexa|af)[ _-]?(?:fluor[ _-]?)?\d{3}|dna|rna|er|agp|mito|actin|tubulin|nucle(?:us|i)|membrane|brightfield|bf|dic"
)
COLOURS = "red|green|blue|yellow"
COUNTED = r"(?:channel|chan|ch|w)[ _-]?\d{1,3}"

APART, ENDED = "(?<![a-z0-9])", r"(?:(?![a-z0-9])|(?=sk\d))"
"""A channel's part stands by itself; Harmony alone writes on: `-ch1sk1fk1fl1`."""

PARTS = [re.compile(f"(?i){APART}({part}){ENDED}") for part in (STAINS, COUNTED, r"c[ _-]?\d{1,3}", COLOURS)]
"""What channels are called in the names of files; what is surer comes first."""

FOLDERS = [re.compile(f"(?i)({part})") for part in (STAINS, r"(?:channel|chan|ch)[ _-]?\d{1,3}")]
"""What they are called where each has a folder. Folders called `red` and `blue`, or `c1` and `c2`, are more often classes."""


class Frame(NamedTuple):
    """A numbered file: what it has in common with the other frames of its film, and its number."""

    film: tuple[str, ...]
    number: int


class Channel(NamedTuple):
    """A file of one channel: what is left of its path without the channel, and the channel as the path has it.

    `before` and `after` are what stands around the channel.
    """

    name: str
    before: str
    after: str

    @property
    def sample(self) -> str:
        return f"{self.before}\0{self.after}"


def frame(path: str) -> Frame | None:
    """What a path with slashes says of a frame; None where it has no number."""
    folder, _, name = path.rpartition("/")
    stem, dot, extension = name.rpartition(".")
    found = NUMBERED.match(stem)
    return Frame((folder, found[1], found[3], dot + extension), int(found[2])) if found else None


def channel(path: str) -> Channel | None:
    """What a path with slashes says of a channel: in the file's name, else in the name of a folder, the last one first."""
    start = path.rfind("/") + 1
    stem = path[: path.rfind(".")] if path.rfind(".") > start else path
    for part in PARTS:
        found = None
        for found in part.finditer(stem, start):  # noqa: B007  (the last one is meant)
            pass
        if found:
            return Channel(found[1], path[: found.start()], path[found.end() :])
    end = start - 1
    while end > 0:
        begin = path.rfind("/", 0, end) + 1
        if any(part.fullmatch(path, begin, end) for part in FOLDERS):
            return Channel(path[begin:end], path[:begin], path[end:])
        end = begin - 1
    return None


def in_order(names: Iterable[str]) -> list[str]:
    """Names of channels, numbers in the order of counting."""
    parts = {name: re.split(r"(\d+)", name.lower()) for name in names}
    return sorted(parts, key=lambda name: ([int(p) if p.isdigit() else p for p in parts[name]], name))


@guarded
def frames(path: Path) -> list[Path]:
    """The files of the film that a frame belongs to, in the order of their numbers."""
    mine = frame(path.name)
    beside = [
        (found.number, name) for name in listed(path.parent) if (found := frame(name)) and mine and found.film == mine.film
    ]
    return [path.with_name(name) for _, name in sorted(beside)]


@guarded
def channels(path: Path, name: str) -> dict[str, Path]:
    """The files of the picture that a file of one channel belongs to, by channel, in order; empty where it names no channel.

    Args:
        path: the file.
        name: what of its path is the data's own: folders above it say nothing.
    """
    whole = path.as_posix()
    name = name if whole.endswith(name) and name else path.name
    mine, root = channel(name), whole.removesuffix(name)
    if mine is None:
        return {}
    if "/" in mine.after:  # a folder for each channel
        there = [f"{mine.before}{folder}{mine.after}" for folder in listed(Path(root + mine.before))]
        there = [each for each in there if Path(root + each).is_file()]
    else:
        there = [name[: name.rfind("/") + 1] + file for file in listed(path.parent)]
    parts = {part.name: Path(root + each) for each in there if (part := channel(each)) and part.sample == mine.sample}
    return {each: parts[each] for each in in_order(parts)}


def are_frames(names: Iterable[str]) -> bool:
    """Whether these pictures may be frames, by their names: in several folders, of which each holds one film alone."""
    films: dict[str, set[tuple[str, ...]]] = {}
    for each in names:
        found = frame(each)
        if found is None or len(films.setdefault(found.film[0], {found.film}) | {found.film}) > 1:
            return False
    return len(films) > 1


@guarded
def content(path: Path, limits: Limits) -> bytes:
    """The bytes of one of the files."""
    with opened(path) as file:
        if (size := length(file)) > limits.file_bytes:
            raise Unreadable(f"{path.name}: {size:,} bytes are more than the limit of {limits.file_bytes:,}")
        return file.read()


def listed(folder: Path) -> tuple[str, ...]:
    """What lies in a folder, sorted, but for what is hidden."""
    return _listing(str(folder), os.stat(folder).st_mtime_ns)


@lru_cache(maxsize=64)
def _listing(folder: str, changed: int) -> tuple[str, ...]:
    """A folder that was changed at another time is read again."""
    return tuple(sorted(name for name in os.listdir(folder) if not name.startswith(".")))
