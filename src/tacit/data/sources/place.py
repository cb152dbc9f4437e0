"""A file or a folder, on this machine or anywhere that fsspec opens."""

from __future__ import annotations

import datetime
import os
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from tacit.core import files
from tacit.core.errors import TacitError
from tacit.data.payload import Limits, Unreadable, is_store

REMOTE = (
    "https", "http", "s3", "gs", "s3a", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss", "hf", "hdfs", "webhdfs", "ftp",
    "sftp", "memory",
)  # fmt: skip
"""Protocols that data may name. A person may name any that fsspec knows, some of which open files or run programs here."""


@dataclass(frozen=True)
class Place:
    """One path.

    Attributes:
        path: inside its file system.
        fs: an fsspec file system; None for this machine's own files.
    """

    path: str
    fs: Any = None

    @classmethod
    def of(cls, text: str | os.PathLike[str]) -> Place:
        """The place that a user named, a path or a URL (`s3://`, `memory://`, `zip://...::...`)."""
        text = os.fspath(text)
        if "://" not in text:
            return cls(os.path.expanduser(text))
        import fsspec

        try:
            fs, path = fsspec.core.url_to_fs(text)
        except (ImportError, ValueError, OSError) as problem:
            raise TacitError(f"cannot open {text}: {problem}") from problem
        return cls(path) if "file" in fs.protocol else cls(path, fs)

    def __str__(self) -> str:
        return self.path if self.fs is None else self.fs.unstrip_protocol(self.path)

    def __truediv__(self, name: str) -> Place:
        """The place of that name below this one; a URL or an absolute path stands for itself.

        Names may come from data: a URL in them leads to a server or a store (`REMOTE`), and through nothing else.
        """
        if "://" in name:
            if "::" in name or name.partition("://")[0] not in REMOTE:
                raise Unreadable(f"a URL in data begins with {', '.join(REMOTE[:4])} ..., and is no chain of them")
            return Place.of(name)
        if self.fs is None:
            return Place(os.path.join(self.path, name))
        return Place(posixpath.normpath(posixpath.join(self.path, name)), self.fs)

    @property
    def name(self) -> str:
        return posixpath.basename(self.path.rstrip("/")) if self.fs else os.path.basename(os.path.normpath(self.path))

    @property
    def suffix(self) -> str:
        """The last extension, lower case, with its dot."""
        return posixpath.splitext(self.name)[1].lower()

    @property
    def parent(self) -> Place:
        return Place(posixpath.dirname(self.path) if self.fs else os.path.dirname(self.path), self.fs)

    def is_folder(self) -> bool:
        return os.path.isdir(self.path) if self.fs is None else self.fs.isdir(self.path)

    def is_file(self) -> bool:
        """A regular file: neither a folder nor a pipe nor a device."""
        return os.path.isfile(self.path) if self.fs is None else self.fs.isfile(self.path)

    def is_store(self) -> bool:
        """A folder on this machine that is one sample."""
        return self.fs is None and is_store(Path(self.path))

    def exists(self) -> bool:
        return os.path.lexists(self.path) if self.fs is None else self.fs.exists(self.path)

    def facts(self) -> tuple[int, int]:
        """Size in bytes and time of change in nanoseconds (0 where the file system knows none)."""
        if self.fs is None:
            found = os.stat(self.path)
            return found.st_size, found.st_mtime_ns
        return facts_of(self.fs.info(self.path))

    def names(self) -> list[str]:
        """What lies directly in this folder, sorted."""
        if self.fs is None:
            return sorted(os.listdir(self.path))
        return sorted(posixpath.basename(str(p).rstrip("/")) for p in self.fs.ls(self.path, detail=False))

    def open(self) -> BinaryIO:
        """The file for reading. Refuses with `Unreadable` what is not a regular file."""
        try:
            return files.opened(self.path) if self.fs is None else self.fs.open(self.path, "rb")
        except (OSError, ValueError) as problem:
            raise Unreadable(reason(problem)) from problem

    def read(self, limit: int | None = None, offset: int = 0, size: int | None = None) -> bytes:
        """The file's bytes, or `size` of them from `offset`. Refuses more than `limit` with `Unreadable`."""
        with self.open() as file:
            try:
                wanted = file.seek(0, os.SEEK_END) if size is None else size
                if limit is not None and wanted > limit:
                    raise Unreadable(f"{wanted:,} bytes are more than the limit of {limit:,}")
                file.seek(offset)
                content = file.read(wanted)
            except (OSError, ValueError, EOFError) as problem:
                raise Unreadable(reason(problem)) from problem
        if len(content) < wanted:
            raise Unreadable(f"truncated: {len(content):,} of {wanted:,} bytes are there")
        return content

    def payload(self, limits: Limits) -> bytes | Path:
        """The bytes of the file; where it lies, if it lies here and is read in parts. Raises `Unreadable`."""
        if self.is_store():
            return Path(self.path)
        if limits.whole or self.fs is not None:
            return self.read(limits.file_bytes)
        self.open().close()  # there, and a regular file
        return Path(self.path)

    def walk(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Every file below a folder that is not local: its path from here, and what fsspec knows of it, sorted."""
        start = len(self.path.rstrip("/")) + 1
        for path, info in sorted(self.fs.find(self.path, detail=True).items()):
            if info.get("type", "file") == "file":
                yield str(path)[start:], info


def facts_of(info: dict[str, Any]) -> tuple[int, int]:
    """Size and time of change, from what fsspec knows of a file."""
    for key in ("mtime", "LastModified", "last_modified", "updated", "modified", "created"):
        when = info.get(key)
        if isinstance(when, datetime.datetime):
            return int(info.get("size") or 0), int(when.timestamp() * 1e6) * 1000
        if isinstance(when, (int, float)):
            return int(info.get("size") or 0), int(when * 1e9)
    return int(info.get("size") or 0), 0


def reason(problem: BaseException) -> str:
    """Why a file could not be read, in one line."""
    if isinstance(problem, FileNotFoundError):
        return "no such file"
    if isinstance(problem, OSError) and problem.strerror:
        return problem.strerror.lower()
    return f"{type(problem).__name__}: {' '.join(str(problem).split())[:200]}"
