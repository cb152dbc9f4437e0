"""Pictures through Pillow: orientation tags obeyed, palettes resolved, transparency laid on white, 16-bit grey kept."""

from __future__ import annotations

import io
import warnings
from functools import cache

import numpy as np
from PIL import Image, ImageFile

from tacit.data.payload import Limits, Unreadable

NOT_FILES_OF_PIXELS = {"EPS", "WMF", "MPEG", "BUFR", "GRIB", "HDF5"}
"""Formats that Pillow hands to other programs, or only identifies."""

WITHOUT_SIGNATURE = {"TGA", "SPIDER", "MSP", "PCX", "PCD", "XVTHUMB", "IM", "IMT", "MCIDAS", "IPTC", "XBM", "PIXAR", "CUR"}
"""Formats with a weak signature or none: only tried where the extension names them, lest noise be read as a picture."""

TURNS = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}
"""How an array is turned upright, by EXIF orientation. From 5 on, height and width change places."""

# What is wrong with a picture is said once, as the reason why it is unreadable. Its number of pixels is judged by the kind.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.TiffImagePlugin")


@cache
def formats() -> tuple[tuple[str, ...], dict[str, str]]:
    """The formats told by their signature, and the format of every extension."""
    Image.init()
    usable = set(Image.OPEN) - NOT_FILES_OF_PIXELS
    by_extension = {e: f for e, f in Image.registered_extensions().items() if f in usable}
    return tuple(sorted(usable - WITHOUT_SIGNATURE)), by_extension


def opened(payload: bytes, extension: str, limits: Limits) -> Image.Image:
    """The picture with its header read and not a pixel decoded."""
    signed, by_extension = formats()
    named = by_extension.get(extension)
    if limits.pixels > (Image.MAX_IMAGE_PIXELS or limits.pixels):
        Image.MAX_IMAGE_PIXELS = limits.pixels  # Pillow has its limit in a global; more was asked for in so many words.
    try:
        return Image.open(io.BytesIO(payload), formats=signed if named is None or named in signed else (named, *signed))
    except Image.DecompressionBombError:
        raise Unreadable(f"more than the limit of {limits.pixels:,} pixels") from None
    except Image.UnidentifiedImageError:
        raise Unreadable("not a picture that can be identified") from None


def header(picture: Image.Image) -> tuple[int, str, tuple[int, int]]:
    """Channels, dtype, and height and width when held upright."""
    upright = _orientation(picture) < 5
    extent = (picture.height, picture.width) if upright else (picture.width, picture.height)
    return *_channels_and_dtype(picture), extent


def read(picture: Image.Image, extent: tuple[int, ...]) -> np.ndarray:
    """The whole picture, upright, `[H, W, C]`.

    Eight-bit pictures come shrunk to `extent` (height and width when upright); others in their own size.
    """
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise Unreadable("PIL.ImageFile.LOAD_TRUNCATED_IMAGES is set: half a picture would pass for a whole one")
    orientation = _orientation(picture)
    height, width = extent if orientation < 5 else (extent[1], extent[0])
    picture.draft(None, (width, height))
    picture.load()
    return upright(as_array(picture, (width, height)), picture)


def upright(array: np.ndarray, picture: Image.Image) -> np.ndarray:
    """A picture's pixels `[H, W, C]`, turned as its header says that they are to be held."""
    turn = TURNS.get(_orientation(picture))
    return array if turn is None else np.ascontiguousarray(turn(array))


def as_array(picture: Image.Image, size: tuple[int, int] | None = None) -> np.ndarray:
    """`[H, W, C]` uint8 (shrunk to `size`, width and height, where that is given), uint16 or float32."""
    channels, dtype = _channels_and_dtype(picture)
    if dtype == "uint16":
        return np.asarray(picture).clip(0, 65535).astype(np.uint16)[..., None]
    if dtype == "float32":
        return np.asarray(picture).astype(np.float32)[..., None]
    picture = _on_white(picture, "L" if channels == 1 else "RGB")
    if size is not None and picture.size != size:
        picture = picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
    return np.asarray(picture).reshape(picture.height, picture.width, channels)


def _channels_and_dtype(picture: Image.Image) -> tuple[int, str]:
    mode = picture.mode
    if mode.startswith("I;16") or (mode == "I" and picture.format in ("PNG", "PPM")):
        return 1, "uint16"
    if mode in ("I", "F"):
        return 1, "float32"
    return (1 if mode in ("1", "L", "LA", "La") else 3), "uint8"


def _on_white(picture: Image.Image, mode: str) -> Image.Image:
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        over = picture.convert("RGBA")
        white = Image.new("RGBA", over.size, "white")
        white.alpha_composite(over)
        return white.convert(mode)
    return picture if picture.mode == mode else picture.convert(mode)


def _orientation(picture: Image.Image) -> int:
    try:
        return int(picture.getexif().get(0x0112, 1))
    except Exception:  # Broken tags do not spoil the pixels.
        return 1
