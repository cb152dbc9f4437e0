"""What the readers of formats share: how content is opened, how much is too much, and what becomes of a decoder's problems."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import BinaryIO, ParamSpec, TypeVar

import numpy as np

from tacit.core import files
from tacit.core.errors import TacitError, said
from tacit.data.payload import Limits, Unreadable

Content = bytes | BinaryIO | Path
"""The bytes of a file, a seekable file, or where it lies."""

DEFAULT_LIMITS = Limits()

PACKED = 1032
"""Nothing that DEFLATE packs becomes more than so many times smaller."""

_P = ParamSpec("_P")
_R = TypeVar("_R")


def guarded(read: Callable[_P, _R]) -> Callable[_P, _R]:
    """Decoders meet hostile bytes and raise anything at all: whatever it is becomes `Unreadable`, in one line.

    A `TacitError` is not about the bytes, but about what is not installed: it passes.
    """

    @wraps(read)
    def guard(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return read(*args, **kwargs)
        except (Unreadable, TacitError):
            raise
        except Exception as problem:
            kind, words = type(problem).__name__, said(problem)
            raise Unreadable(kind if words == kind else f"{kind}: {words}") from problem

    return guard


@contextmanager
def opened(content: Content) -> Iterator[BinaryIO]:
    """The content as a file at its beginning; closed afterwards, unless it came open."""
    if isinstance(content, Path):
        with files.opened(content) as file:
            yield file
        return
    file = io.BytesIO(content) if isinstance(content, bytes) else content
    file.seek(0)
    yield file


def length(file: BinaryIO) -> int:
    """Bytes in the file, which is left at its beginning. An empty one is `Unreadable`."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if not size:
        raise Unreadable("empty file")
    return size


def pieces(
    file: BinaryIO, places: Sequence[int], shape: Sequence[int], dtype: np.dtype, part: tuple[slice, ...], limits: Limits
) -> np.ndarray:
    """`[len(places), ...]`: this part of each of the arrays `[*shape]`, in C order, that begin at these bytes of a file."""
    refuse_large(shape, dtype.itemsize, limits)
    piece = np.empty(math.prod(shape) * dtype.itemsize, np.uint8)
    seen = piece.view(dtype).reshape(shape)[part]
    found = np.empty((len(places), *seen.shape), dtype)
    for row, at in zip(found, places, strict=True):
        file.seek(at)
        if file.readinto(piece) != len(piece):  # pyright: ignore[reportAttributeAccessIssue]
            raise Unreadable("truncated: values lie beyond the end of the file")
        row[...] = seen
    return found


def missing(what: str, package: str, extra: str) -> TacitError:
    """What to say where a reader's own library is not installed."""
    return TacitError(f"reading {what} needs {package}, which is not installed: pip install 'tacit[{extra}]'")


def kept(dtype: np.dtype) -> str:
    """The dtype that values are kept in: the smallest of three that holds them all (what is larger is rounded)."""
    if dtype in (np.bool_, np.uint8):
        return "uint8"
    if dtype.kind not in "iuf":
        raise Unreadable(f"values of type {dtype} are no numbers to learn from")
    return "uint16" if dtype == np.uint16 else "float32"


def as_labels(array: np.ndarray) -> np.ndarray:
    """Numbers of classes, int64; `Unreadable` where they are not whole."""
    if array.dtype.kind not in "biuf" or (array.dtype.kind == "f" and not (np.rint(array) == array).all()):
        raise Unreadable(f"values of type {array.dtype} that are not whole: numbers of classes were expected")
    return array.astype(np.int64)


def as_kept(array: np.ndarray) -> np.ndarray:
    """The values in the dtype that they are kept in, contiguous and in the machine's own order of bytes."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.ascontiguousarray(array, dtype=kept(array.dtype))


def refuse_large(shape: Sequence[int], itemsize: int, limits: Limits) -> None:
    """What is decoded may take no more memory than a file may have bytes: looked at before it is taken."""
    if math.prod(shape) * itemsize > limits.file_bytes:
        size = "x".join(map(str, shape))
        raise Unreadable(
            f"{size} values of {itemsize} bytes are more than the limit of {limits.file_bytes:,} bytes; take a part"
        )


def refuse_missing(claimed: int, there: int, packed: int = 1) -> None:
    """A header that claims more bytes than the file can hold is damaged, or an attack.

    Args:
        claimed: bytes of all values, unpacked.
        there: bytes of the file.
        packed: how many times smaller they may be there.
    """
    if claimed > there * packed:
        raise Unreadable(f"truncated: {claimed:,} bytes of values are claimed by a file of {there:,}")
