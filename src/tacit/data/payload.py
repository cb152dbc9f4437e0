"""What a source hands to a kind: the bytes of a file or an array; how much is too much; why it is no use."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

import numpy as np

Payload = bytes | np.ndarray | Path
"""The bytes of a file, an array, or where a file lies on this machine."""


STORE = ".zarr"
"""Folders with this extension are samples as a whole, or plates of them: files that lie in them are not listed."""


def is_store(payload: object) -> TypeGuard[Path]:
    """Whether this is a folder whose name says that it is one, or a folder in such a one: a picture of a plate."""
    return isinstance(payload, Path) and in_store(f"{payload}/") and os.path.isdir(payload)


def in_store(path: str) -> bool:
    """Whether a path goes through a folder whose name says that it is a store."""
    return f"{STORE}/" in path.lower()


class Unreadable(Exception):
    """A sample that cannot be used. The message is the reason, one line, as `skipped.tsv` shows it."""


@dataclass(frozen=True)
class Limits:
    """What a single sample may ask for before it is taken for an accident or an attack.

    Attributes:
        pixels: height times width of a picture that is still decoded (the default is Pillow's own threshold).
        file_bytes: size of a file that is still read, and of what is decoded from one at a time.
        whole: whether files are read whole; else a local one is handed over by its path, to be read in parts.
    """

    pixels: int = 89_478_485
    file_bytes: int = 1 << 30
    whole: bool = True


def memory() -> int:
    """Bytes of memory that this process may use: the machine's, or what its control group allows."""
    most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            most = min(most, int(Path("/sys/fs/cgroup", name).read_text()))
        except (OSError, ValueError):  # no such group, or "max"
            continue
    return most
