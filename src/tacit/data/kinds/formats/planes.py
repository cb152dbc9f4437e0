"""Pictures of any number of named channels: multi-page and OME TIFFs, Zarr, and arrays (`.npy`) of `[C, H, W]`."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np

from tacit.data.kinds.formats import npy, ome_zarr, pillow, tiff
from tacit.data.kinds.formats.content import DEFAULT_LIMITS, Content, as_kept, guarded, kept, length, opened, refuse_large
from tacit.data.payload import Limits, Unreadable, is_store

if TYPE_CHECKING:
    import tifffile

EXTENSIONS = frozenset({".tif", ".tiff", ".npy"}) | ome_zarr.EXTENSIONS
PAGE_NAME = 285
"""The tag that names a page."""


Read = Callable[[Sequence[int] | None], np.ndarray]


@dataclass(frozen=True)
class Planes:
    """A picture by its header.

    Attributes:
        names: of the channels, in their order; `channel 1` and so on where the file does not say.
        dtype: `uint8`, `uint16` or `float32`.
        extent: height and width in pixels.
        named: whether the names are the file's own.
    """

    names: tuple[str, ...]
    dtype: str
    extent: tuple[int, int]
    named: bool = False


def header(content: Content, limits: Limits = DEFAULT_LIMITS) -> Planes:
    """What the picture is, without a pixel decoded."""
    return seen(content, limits)[0]


def read(content: Content, channels: Sequence[int] | None = None, limits: Limits = DEFAULT_LIMITS) -> np.ndarray:
    """`[C, H, W]` in the header's dtype.

    Args:
        content: the file.
        channels: their numbers, in any order; all, if None. Pages of others are not decoded.
        limits: a channel may have so many pixels; all that are read together, so many bytes.
    """
    return seen(content, limits)[1](channels)


@guarded
def seen(content: Content, limits: Limits) -> tuple[Planes, Read]:
    """What the picture is, and what reads channels of it without looking at its header again."""
    if is_store(content):
        return _of_store(content, limits)
    payload = _whole(content, limits)
    found, file = _opened(payload, limits)
    return found, guarded(lambda channels: _read(payload, found, file, channels, limits))


def _read(
    payload: bytes, found: Planes, file: tifffile.TiffFile | None, channels: Sequence[int] | None, limits: Limits
) -> np.ndarray:
    chosen = list(range(len(found.names)) if channels is None else channels)
    _refuse_others(chosen, found)
    refuse_large((len(chosen), *found.extent), 4 if found.dtype == "float32" else np.dtype(found.dtype).itemsize, limits)
    if payload.startswith(npy.SIGNATURE):
        stream = io.BytesIO(payload)
        head = npy.header(stream, len(payload))
        first = min(chosen)
        planes = npy.rows(stream, head, slice(first, max(chosen) + 1), limits)
        return as_kept(planes[[channel - first for channel in chosen]])
    if file is None:
        picture = pillow.opened(payload, ".tif", limits)
        return as_kept(np.moveaxis(pillow.read(picture, found.extent), 2, 0)[chosen])
    series = file.series[0]
    if channels is None and series.dataoffset is not None and len(series.pages) == len(found.names):
        return as_kept(series.asarray(maxworkers=1).reshape(len(found.names), *found.extent))
    if len(series.pages) == len(found.names) > 1:
        pages = [page.asarray(maxworkers=1) for page in (series.pages[channel] for channel in chosen) if page is not None]
        return as_kept(np.stack([page.reshape(found.extent) for page in pages]))
    refuse_large((len(found.names), *found.extent), series.dtype.itemsize, limits)
    return as_kept(np.moveaxis(tiff.read(file), 2, 0)[chosen])


def _whole(content: Content, limits: Limits) -> bytes:
    with opened(content) as file:
        if (size := length(file)) > limits.file_bytes:
            raise Unreadable(f"{size:,} bytes are more than the limit of {limits.file_bytes:,}")
        return file.read()


def _opened(payload: bytes, limits: Limits) -> tuple[Planes, tifffile.TiffFile | None]:
    """The header; and the TIFF, unless it is one that Pillow reads, or an array."""
    file, described = None, []
    if payload.startswith(npy.SIGNATURE):
        head = npy.header(io.BytesIO(payload), len(payload))
        if len(head.shape) != 3:
            raise Unreadable(f"an array of shape {head.shape} is no picture of channels: [C, H, W] was expected")
        (channels, height, width), dtype = head.shape, head.dtype
    elif not tiff.is_tiff(payload):
        raise Unreadable("neither a TIFF nor an array of NumPy's")
    elif (file := tiff.opened(payload)) is not None:
        channels, dtype, (height, width) = tiff.header(file)
        with suppress(Exception):  # broken descriptions do not spoil the pixels
            described = _described(file)
    else:
        channels, dtype, (height, width) = pillow.header(pillow.opened(payload, ".tif", limits))
    return _planes(channels, (height, width), np.dtype(dtype), described, limits), file


def _planes(channels: int, extent: tuple[int, int], dtype: np.dtype, described: Sequence[str], limits: Limits) -> Planes:
    if min(channels, *extent) < 1 or math.prod(extent) > limits.pixels:
        size = "x".join(map(str, extent))
        raise Unreadable(f"{channels} channels of {size}; from 1 to the limit of {limits.pixels:,} pixels were expected")
    named = len(described) == channels and all(described)
    names = described if named else [f"channel {number}" for number in range(1, channels + 1)]
    return Planes(tuple(names), kept(dtype), extent, named)


def _of_store(path: Path, limits: Limits) -> tuple[Planes, Read]:
    store, values = ome_zarr.picture(path, limits)
    found = _planes(store.size("c"), (store.size("y"), store.size("x")), store.array.dtype, store.names, limits)

    def read(channels: Sequence[int] | None) -> np.ndarray:
        chosen = list(range(len(found.names)) if channels is None else channels)
        _refuse_others(chosen, found)
        return values(slice(min(chosen), max(chosen) + 1))[[channel - min(chosen) for channel in chosen]]

    return found, guarded(read)


def _refuse_others(chosen: Sequence[int], found: Planes) -> None:
    if not chosen or not all(0 <= channel < len(found.names) for channel in chosen):
        raise Unreadable(f"channels {chosen} were asked for of a picture with {len(found.names)}")


def _described(file: tifffile.TiffFile) -> list[str]:
    """Names of channels as microscopes write them: OME's, ImageJ's, or those of the pages."""
    if file.ome_metadata:
        pixels = next((e for e in ElementTree.fromstring(file.ome_metadata).iter() if e.tag.endswith("}Pixels")), ())
        return [_one_line(e.get("Name", "")) for e in pixels if e.tag.endswith("}Channel")]
    if labels := (file.imagej_metadata or {}).get("Labels"):
        return [_one_line(label) for label in labels]
    series = file.series[0]
    if PAGE_NAME not in series.keyframe.tags:  # all have names, or none
        return []
    tags = [getattr(page.aspage(), "tags", {}) for page in series.pages if page is not None]
    return [_one_line(page[PAGE_NAME].value) if PAGE_NAME in page else "" for page in tags]


def _one_line(name: object) -> str:
    return " ".join(str(name).split())[:100]
