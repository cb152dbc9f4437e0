"""Files that are whole or absent: written to a temporary name, synced, renamed; and places that one process holds at a time."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from tacit.core.errors import Hindered, TacitError, said

MENDS = {
    errno.ENOSPC: "free some room",
    errno.EDQUOT: "free some of your quota",
    errno.EFBIG: "allow larger files",
    errno.EROFS: "make it writable, or choose another place",
    errno.EACCES: "make it writable, or choose another place",
    errno.EPERM: "make it writable, or choose another place",
    errno.EEXIST: "choose another place",
    errno.ENOTDIR: "choose another place",
    errno.EISDIR: "choose another place",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EIO: "look after the disk",
    errno.ESTALE: "look after the network disk",
    errno.ENOTCONN: "look after the network disk",
}
"""What the system says when something cannot be written, and what a person can do about it."""

TEXT_BYTES = 1 << 30
"""No table, log or description that tacit reads is larger than this."""

# Opening a pipe or a device for reading must return at once, so that it can be found out and closed.
_READING = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


class Unwritable(Hindered):
    """Something cannot be written: the message names it, the cause and the way out."""


@contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """What keeps the block from writing (a full disk, a read-only folder) becomes an `Unwritable` that names `path`."""
    try:
        yield
    except Exception as problem:
        cause: BaseException | None = problem
        # Writers in other languages raise their own errors after the system's.
        while cause is not None and not (isinstance(cause, OSError) and cause.errno in MENDS):
            cause = cause.__cause__ or cause.__context__
        if isinstance(problem, TacitError) or cause is None:
            raise
        assert isinstance(cause, OSError)
        assert cause.errno is not None
        raise Unwritable(f"cannot write {path}: {os.strerror(cause.errno).lower()}; {MENDS[cause.errno]}") from problem


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A binary file that becomes `path` when the block ends well, and vanishes when it does not.

    Readers see the old content or the new, never a part. Raises `Unwritable`.
    """
    path = Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file, temporary = _beside(path)
        with file:
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
                os.replace(temporary, path)
            except BaseException:
                with suppress(OSError):
                    os.unlink(temporary)
                raise
        _sync_folder(path.parent)


def try_writing(path: str | os.PathLike[str]) -> None:
    """Raises `Unwritable` now where `path` could not be written later; leaves nothing but its folder."""
    path = Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file, temporary = _beside(path)
        file.close()
        os.unlink(temporary)


def _beside(path: Path) -> tuple[BinaryIO, Path]:
    """An empty file in the same folder, held by this process alone.

    Names are used again, so that what a killed process leaves is overwritten by the next one instead of piling up.
    """
    number = 0
    while True:
        temporary = path.with_name(f".{path.name[:40]}.{number}.part")
        file = os.fdopen(os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666), "w+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Between the two lines above another process may have finished this very file, and renamed it.
            if stat.S_ISREG(os.fstat(file.fileno()).st_mode) and os.path.samestat(os.lstat(temporary), os.fstat(file.fileno())):
                file.truncate()
                return file, temporary
        except (BlockingIOError, FileNotFoundError):
            pass
        except OSError:  # a file system that knows no locks
            file.close()
            temporary.unlink(missing_ok=True)
            temporary = path.with_name(f".{path.name[:40]}.{secrets.token_hex(4)}.part")
            return open(temporary, "x+b"), temporary
        file.close()
        number += 1


@contextmanager
def locked(path: str | os.PathLike[str], busy: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock file `path` within the block. The system lets go of it however the process ends, so none is ever stale.

    Args:
        path: the file; it stays, and names whoever holds it.
        busy: called with who that is (`process 12 on host`) where it is another; when it returns, the block waits its turn.
    """
    with writing(path):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+b", buffering=0)  # noqa: SIM115 - closed below
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            busy(file.read(200).decode(errors="replace").strip() or "another process")
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:  # a file system that knows no locks: better unguarded than not at all
            pass
        with writing(path):
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    with replacing(path) as file:
        file.write(content)


def write_text(path: str | os.PathLike[str], content: str) -> None:
    write_bytes(path, content.encode())


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Strict JSON (no NaN), indented, with a final new line."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def opened(path: str | os.PathLike[str]) -> BinaryIO:
    """A regular file for reading; an `OSError`, at once, for a pipe or a device, which could keep a reader waiting for ever."""
    descriptor = os.open(path, _READING)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file")
    return os.fdopen(descriptor, "rb")


def read_text(path: str | os.PathLike[str], errors: str = "strict") -> str:
    """The content of a UTF-8 file; a `TacitError` that names it where it cannot be read, or is larger than any of ours.

    Args:
        errors: what becomes of bytes that are not UTF-8, as in `bytes.decode`.
    """
    try:
        with opened(path) as file:
            if (size := os.fstat(file.fileno()).st_size) > TEXT_BYTES:
                raise ValueError(f"{size:,} bytes are more than the {TEXT_BYTES:,} that are read")
            return file.read().decode(errors=errors)
    except FileNotFoundError:
        raise TacitError(f"no such file: {path}") from None
    except (OSError, ValueError) as problem:
        raise TacitError(f"cannot read {path} ({said(problem)}); restore it or start a new run") from problem


def read_json(path: str | os.PathLike[str]) -> Any:
    """The content of a JSON file; a `TacitError` that names the file when it cannot be read."""
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as problem:
        raise TacitError(f"cannot read {path} as JSON ({said(problem)}); restore it or start a new run") from problem


def _sync_folder(folder: Path) -> None:
    """Make the rename itself survive a power cut, where the system lets a folder be opened."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
