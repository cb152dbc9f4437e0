"""PNGs with 16 bits in colour or beside transparency: Pillow would cut them down to 8, so imagecodecs reads them."""

from __future__ import annotations

from typing import Any

import numpy as np

from tacit.data.payload import Unreadable

SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOURS = {2: 3, 4: 1, 6: 3}
"""Channels by colour type: RGB, grey with alpha, RGB with alpha."""


def is_deep(payload: bytes) -> bool:
    """Whether these are the bytes of such a PNG. Grey with 16 bits and nothing else, Pillow reads whole."""
    return payload[:8] == SIGNATURE and payload[12:16] == b"IHDR" and payload[24] == 16 and payload[25] in COLOURS


def channels(payload: bytes) -> int:
    """How many are left once transparency is laid on white."""
    _codec()
    return COLOURS[payload[25]]


def read(payload: bytes) -> np.ndarray:
    """`[H, W, C]` uint16, transparency laid on white."""
    array = _codec().png_decode(payload)
    if array.dtype != np.uint16:
        raise Unreadable(f"a PNG that says 16 bits and has {array.dtype}")
    if array.shape[2] == channels(payload):
        return array
    colours, alpha = array[..., :-1], array[..., -1:].astype(np.uint32)
    white = 65535 * (65535 - alpha)
    return ((colours * alpha + white + 32767) // 65535).astype(np.uint16)


def _codec() -> Any:
    try:
        import imagecodecs
    except ImportError:
        raise Unreadable("a PNG with 16 bits in colour needs imagecodecs: pip install imagecodecs") from None
    return imagecodecs
