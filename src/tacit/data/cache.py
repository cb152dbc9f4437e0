"""Where tacit keeps what it can make again: listings of folders and decoded samples."""

from __future__ import annotations

import os
import sys
import zlib
from pathlib import Path

import pyarrow as pa

from tacit.core import files
from tacit.core.errors import TacitError
from tacit.data.index import sound


def cache_folder() -> Path:
    """`$TACIT_CACHE`, else the platform's place for caches. Not created here."""
    if given := os.environ.get("TACIT_CACHE"):
        return Path(given).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "tacit"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "tacit" / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tacit"


def keep_table(name: str, table: pa.Table) -> None:
    """Keep a table under a name (with folders), and its checksum. A cache that cannot be written is none: no error."""
    path = cache_folder() / f"{name}.arrow"
    try:
        with files.replacing(path) as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
        with pa.memory_map(str(path)) as file:
            files.write_bytes(path.with_suffix(".crc"), _checksum(file))
    except (TacitError, OSError):
        pass


def kept_table(name: str) -> pa.Table | None:
    """The table kept under that name, mapped into memory; None where there is none, or not a byte for byte sound one."""
    path = cache_folder() / f"{name}.arrow"
    try:
        with files.opened(path.with_suffix(".crc")) as said, files.opened(path), pa.memory_map(str(path)) as file:
            if said.read(8) != _checksum(file):
                return None
            return sound(pa.ipc.open_file(file).read_all())
    except (OSError, ValueError, pa.ArrowException):
        return None


def _checksum(file: pa.MemoryMappedFile) -> bytes:
    file.seek(0)
    found = zlib.crc32(memoryview(file.read_buffer()))
    file.seek(0)
    return f"{found:08x}".encode()
