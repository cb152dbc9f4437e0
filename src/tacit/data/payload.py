"""What a source hands to a kind: the bytes of a file or an array; how much is too much; why it is no use."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Payload = bytes | np.ndarray


class Unreadable(Exception):
    """A sample that cannot be used. The message is the reason, one line, as `skipped.tsv` shows it."""


@dataclass(frozen=True)
class Limits:
    """What a single sample may ask for before it is taken for an accident or an attack.

    Attributes:
        pixels: height times width of a picture that is still decoded (the default is Pillow's own threshold).
        file_bytes: size of a file that is still read.
    """

    pixels: int = 89_478_485
    file_bytes: int = 1 << 30
