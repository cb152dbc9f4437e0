"""ZIP archives (NumPy's `.npz`, checkpoints of torch) from anywhere: looked at before anything is unpacked."""

from __future__ import annotations

import os
import struct
import zipfile
from typing import BinaryIO

from tacit.core import files
from tacit.core.errors import said

DIRECTORY_BYTES = 4 << 20
"""A longer directory, of some fifty thousand members, is an attack: one of millions takes gigabytes to read."""

_END, _END64 = b"PK\5\6", b"PK\6\6"


def archive(file: BinaryIO) -> zipfile.ZipFile:
    """The archive in a file, its directory read; a `ValueError` where that cannot be, or is longer than `DIRECTORY_BYTES`."""
    if (size := _directory_bytes(file)) > DIRECTORY_BYTES:
        raise ValueError(f"its directory of {size:,} bytes is longer than the {DIRECTORY_BYTES:,} that are read")
    try:
        return zipfile.ZipFile(file)
    except Exception as problem:  # a damaged directory makes the parser fail in any way
        raise ValueError(said(problem)) from problem


def refuse_damaged(path: str | os.PathLike[str]) -> None:
    """A `ValueError` where a file is an archive with a member that does not match its checksum, or is packed.

    Neither NumPy's plain archives nor torch's are packed, so that what they unpack to can be no more than the file.
    """
    with files.opened(path) as file:
        if not zipfile.is_zipfile(file):
            return
        found = archive(file)
        unpacked = sum(member.file_size for member in found.infolist())
        if unpacked > (size := file.seek(0, os.SEEK_END)):
            raise ValueError(f"{size:,} bytes would unpack to {unpacked:,}")
        try:
            odd = found.testzip()
        except Exception as problem:  # a damaged member makes the parser fail in any way
            raise ValueError(said(problem)) from problem
        if odd is not None:
            raise ValueError(f"its part {odd!r} does not match its checksum")


def _directory_bytes(file: BinaryIO) -> int:
    """How long the directory is by the record at the archive's end, found where `zipfile` finds it; 0 where there is none."""
    length = file.seek(0, os.SEEK_END)
    file.seek(max(0, length - (1 << 16) - 22 - 76))
    tail = file.read()
    plain = tail[-22:-18] == _END and tail[-2:] == b"\0\0"
    at = len(tail) - 22 if plain else tail.rfind(_END)
    if at < 0 or len(tail) < at + 22:
        return 0
    large = at - 76  # a longer record for longer archives, before a locator of 20 bytes
    if large >= 0 and tail[large : large + 4] == _END64:
        return struct.unpack_from("<Q", tail, large + 40)[0]
    return struct.unpack_from("<I", tail, at + 12)[0]
