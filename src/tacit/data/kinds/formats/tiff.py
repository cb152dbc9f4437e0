"""TIFFs that Pillow would lose something of: many channels, several pages, 16 bits in colour, floats."""

from __future__ import annotations

import importlib.util
import io
import lzma
import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np

from tacit.data.payload import Unreadable

if TYPE_CHECKING:
    import tifffile

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
COLOURS = (2, 5, 6)
"""Photometric interpretations: RGB, CMYK, YCbCr."""

ALPHA = ((1,), (2,))
"""What the tag ExtraSamples says of an alpha channel, multiplied into the colours or not."""

PAGES_AS_CHANNELS = 64
"""A stack of at most so many pages of one size is one picture with as many channels."""

MOST_PAGES = 1000
"""So many pages are looked at; what has more is a film, or an attack."""


def is_tiff(payload: bytes) -> bool:
    return payload[:4] in SIGNATURES


def opened(payload: bytes) -> tifffile.TiffFile | None:
    """The file with its tags read; None where Pillow reads this picture without loss."""
    import tifffile

    # What is wrong with a file is said once, as the reason why it is unreadable.
    tifffile.logger().disabled = True
    pages = _count_pages(payload)
    # One file: descriptions (of OME) may name others, which nobody asked to open.
    file = tifffile.TiffFile(io.BytesIO(payload), _multifile=False)
    if len(file.pages) != pages:
        raise Unreadable(f"truncated: {len(file.pages)} of {pages} pages of the TIFF can be found")
    if pages == 1 and _is_plain(file.pages.first):
        return None
    if not file.series:
        raise Unreadable("a TIFF without a picture")
    file.pages.cache = True  # else every look at a page reads all of its tags again
    _refuse_missing_bytes(file, len(payload))
    if importlib.util.find_spec("imagecodecs") is None:
        _refuse_bombs(file, payload)
    return file


def header(file: tifffile.TiffFile) -> tuple[int, np.dtype, tuple[int, int]]:
    """Channels, dtype, height and width."""
    series = file.series[0]
    extent, channels = _layout(series.shape, series.axes)
    return channels, np.dtype(series.dtype), extent


def read(file: tifffile.TiffFile) -> np.ndarray:
    """`[H, W, C]` in the file's own dtype."""
    series = file.series[0]
    extent, channels = _layout(series.shape, series.axes)
    try:
        array = series.asarray(maxworkers=1)
    except ValueError as problem:
        if "imagecodecs" in str(problem):
            raise Unreadable(f"{problem}; pip install imagecodecs") from problem
        raise
    array = array.reshape([n for n, axis in zip(series.shape, series.axes, strict=True) if n > 1 or axis in "YX"])
    if array.ndim == 3 and array.shape[:2] != extent:
        array = np.moveaxis(array, 0, -1)
    return np.ascontiguousarray(array.reshape(*extent, channels))


def _count_pages(payload: bytes) -> int:
    """How many directories the file chains together; tifffile leaves out those that it cannot find."""
    order = "<" if payload[:2] == b"II" else ">"
    # Where the first offset lies, how long a count, an entry and an offset are: BigTIFF has 64 bits for all.
    at, count, entry, offset = (8, "Q", 20, "Q") if payload[2:4] in (b"+\0", b"\0+") else (4, "H", 12, "I")
    seen: set[int] = set()
    try:
        while directory := struct.unpack_from(order + offset, payload, at)[0]:
            if directory in seen:
                raise Unreadable("the pages of the TIFF lead back to one another")
            seen.add(directory)
            if len(seen) > MOST_PAGES:
                raise Unreadable(f"a TIFF of more than {MOST_PAGES:,} pages")
            at = directory + struct.calcsize(order + count) + entry * struct.unpack_from(order + count, payload, directory)[0]
    except struct.error:
        raise Unreadable("truncated: a page of the TIFF lies beyond the end of the file") from None
    return len(seen)


def _is_plain(page: tifffile.TiffPage) -> bool:
    """Eight bits or fewer, grey or colour, at most an alpha channel beside it."""
    extra = tuple(map(int, page.extrasamples))
    grey = page.samplesperpixel - len(extra) == 1
    return page.bitspersample in (1, 2, 4, 8) and extra in ((), *ALPHA) and (grey or int(page.photometric) in COLOURS)


def _layout(shape: tuple[int, ...], axes: str) -> tuple[tuple[int, int], int]:
    """Height and width, and how many channels the other axis makes."""
    at = {axis: length for axis, length in zip(axes, shape, strict=True) if length > 1 or axis in "YX"}
    others = [axis for axis in at if axis not in "YX"]
    if not {"Y", "X"} <= at.keys() or len(others) > 1:
        raise Unreadable(f"a TIFF with axes {axes} and shape {shape} is not one picture")
    pages = at[others[0]] if others else 1
    if others and others[0] in "TZ":
        raise Unreadable(f"a stack of {pages} pictures along {others[0]}, not one picture")
    if pages > PAGES_AS_CHANNELS:
        raise Unreadable(f"a stack of {pages} pages; up to {PAGES_AS_CHANNELS} are taken for channels")
    return (at["Y"], at["X"]), pages


def _refuse_missing_bytes(file: tifffile.TiffFile, size: int) -> None:
    """Tifffile fills what is cut off with zeros: look first."""
    series = file.series[0]
    if series.dataoffset is not None:  # one piece, of which it looks at nothing but the beginning
        if series.dataoffset <= 0 or series.dataoffset + series.nbytes > size:
            raise Unreadable("truncated: pixels of the TIFF lie beyond the end of the file")
        return
    for page in series.pages:
        if page is None:
            raise Unreadable("a page of the TIFF is missing")
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
            if offset <= 0 or count <= 0 or offset + count > size:
                raise Unreadable("truncated: pixels of the TIFF lie beyond the end of the file")


def _refuse_bombs(file: tifffile.TiffFile, payload: bytes) -> None:
    """What tifffile unpacks by itself, it unpacks to whatever it becomes: look first. (Imagecodecs keeps to what fits.)"""
    if file.series[0].dataoffset is not None:
        return
    unpackers = {8: zlib.decompressobj, 32946: zlib.decompressobj, 34925: lzma.LZMADecompressor}
    for page in file.series[0].pages:
        unpacker = page and unpackers.get(int(page.compression))
        if not page or not unpacker:
            continue
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
            if len(unpacker().decompress(payload[offset : offset + count], page.nbytes + 1)) > page.nbytes:
                raise Unreadable(f"a piece of the TIFF unpacks to more than the {page.nbytes:,} bytes of its page")
