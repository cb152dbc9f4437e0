"""Pictures inside a page: as large as their share of its bytes allows, as `data:` URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from PIL import Image, ImageOps

from tacit.core.errors import TacitError, said

MAP_BYTES, PICTURE_BYTES, NEIGHBOUR_BYTES, SAMPLE_BYTES = 2_800_000, 1_400_000, 400_000, 500_000
"""What each sort of picture may take of the page's 6 MB; the rest is for words and numbers."""

LARGEST = 50_000_000
"""A picture of more pixels than this was not drawn by any method."""

Made = TypeVar("Made")


@dataclass(frozen=True)
class Level:
    """How large pictures may be: longer side in pixels, WebP quality up to 100 (or without loss)."""

    side: int
    quality: int
    exact: bool = False


# From what is best to look at to what always fits: the last levels hold even noise. The method's own pictures begin without
# loss, so that no artefact is taken for what the method did.
TILES = [Level(*pair) for pair in ((96, 85), (64, 80), (48, 75), (40, 70), (32, 60), (24, 50), (16, 30))]
THUMBNAILS = [Level(*pair) for pair in ((160, 85), (128, 80), (96, 70), (64, 50), (48, 30))]
PICTURES = [Level(2000, 100, exact=True), *(Level(*pair) for pair in ((1400, 85), (1000, 75), (700, 60), (400, 40), (240, 25)))]


@dataclass(frozen=True)
class Sheets:
    """Thumbnails as tiles of a few large pictures, which together are far smaller than thousands of files apart.

    Attributes:
        pictures: `data:` URIs; each holds `across * across` tiles, row by row.
        tile: side of a tile in pixels.
        across: tiles in a row.
    """

    pictures: list[str]
    tile: int
    across: int


@dataclass(frozen=True)
class Shown:
    """A picture and the size to show it at: small ones are enlarged by whole numbers, so that single pixels are seen."""

    src: str
    width: int
    height: int
    zoom: int


def sheets(thumbnails: Sequence[bytes]) -> Sheets:
    """Thumbnails (PNG, JPEG or WebP) as sheets of tiles, in their order."""
    images = [_shrunk(thumbnail, TILES[0].side) for thumbnail in thumbnails]
    largest = max((max(image.size) for image in images), default=1)
    # A hundred of them tell where it is worth the time to encode them all.
    every = max(1, len(images) // 100)
    sample = images[::every]
    likely = (i for i, level in enumerate(TILES) if every * sum(map(len, _tiled(sample, level, largest))) <= MAP_BYTES)
    level, pictures = _within(MAP_BYTES, TILES[next(likely, len(TILES) - 1) :], lambda level: _tiled(images, level, largest))
    return Sheets(pictures, *_tiling(level, largest))


def enlarged(pictures: Sequence[bytes], budget: int = PICTURE_BYTES) -> list[Shown]:
    """The method's own pictures, or those of single samples."""

    def make(level: Level) -> list[tuple[Image.Image, str]]:
        images = [_shrunk(picture, level.side) for picture in pictures]
        return [(image, _data(image, level)) for image in images]

    made = _within(budget, PICTURES, make, lambda pair: len(pair[1]))[1]
    zooms = [max(1, min(4, 1000 // image.width, 480 // image.height)) for image, _ in made]
    return [Shown(src, image.width * zoom, image.height * zoom, zoom) for (image, src), zoom in zip(made, zooms, strict=True)]


def small(thumbnails: Sequence[bytes]) -> list[str]:
    """Thumbnails one by one."""
    return _within(NEIGHBOUR_BYTES, THUMBNAILS, lambda level: [_data(_shrunk(t, level.side), level) for t in thumbnails])[1]


def _within(
    budget: int, levels: Sequence[Level], make: Callable[[Level], list[Made]], size: Callable[[Made], int] = len
) -> tuple[Level, list[Made]]:
    """What the first level makes whose bytes are within the budget, else what the last makes."""
    for level in levels[:-1]:
        if sum(map(size, made := make(level))) <= budget:
            return level, made
    return levels[-1], make(levels[-1])


def _tiling(level: Level, largest: int) -> tuple[int, int]:
    """Side of a tile, no larger than the largest thumbnail, and how many are in a row of a sheet."""
    tile = min(level.side, largest)
    return tile, 1920 // tile


def _tiled(images: Sequence[Image.Image], level: Level, largest: int) -> list[str]:
    tile, across = _tiling(level, largest)
    made = []
    for start in range(0, len(images), across * across):
        part = images[start : start + across * across]
        sheet = Image.new("RGBA", (across * tile, -(-len(part) // across) * tile))
        for place, image in enumerate(part):
            fitted = ImageOps.contain(image, (tile, tile))
            row, column = divmod(place, across)
            sheet.paste(fitted, (column * tile + (tile - fitted.width) // 2, row * tile + (tile - fitted.height) // 2))
        made.append(_data(sheet, level))
    return made


def _shrunk(image: bytes, side: int) -> Image.Image:
    """The picture, its longer side at most `side`."""
    try:
        opened = Image.open(io.BytesIO(image), formats=("PNG", "JPEG", "WEBP"))
        if opened.width * opened.height > LARGEST:
            raise ValueError(f"{opened.width} x {opened.height} pixels")
        opened = opened.convert("RGB")
    except Exception as problem:  # a damaged file makes a decoder fail in any way
        raise TacitError(f"a picture in the run's folder is broken ({said(problem)}); restore it or remove it") from problem
    return opened if max(opened.size) <= side else ImageOps.contain(opened, (side, side), Image.Resampling.LANCZOS)


def _data(image: Image.Image, level: Level) -> str:
    """A `data:` URI, as WebP."""
    file = io.BytesIO()
    image.save(file, "WEBP", quality=level.quality, lossless=level.exact, method=2)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()
