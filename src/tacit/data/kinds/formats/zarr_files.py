"""The files of a Zarr store, as zarr asks for them: none outside of it, and no piece that unpacks to more than it says."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numcodecs import zstd  # pyright: ignore[reportAttributeAccessIssue]
from zarr.abc.store import ByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore

from tacit.data.kinds.formats.content import PACKED
from tacit.data.kinds.formats.zarr_words import inside
from tacit.data.payload import Limits, Unreadable

DESCRIPTIONS = ("zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata")

ABSENT = (1 << 64) - 1
"""Where a shard's index says that a piece is not there."""


@dataclass(frozen=True)
class Packing:
    """How an array's values are packed.

    Attributes:
        codec: what packs a piece; empty for nothing.
        room: bytes of a piece, unpacked.
        pieces: how many a file has whose end says where they begin (a shard); 0 where each file is one.
        checksums: bytes of the checksum behind that index.
        tail: bytes of the checksum behind each piece.
    """

    codec: str
    room: int
    pieces: int = 0
    checksums: int = 0
    tail: int = 0


class Files(LocalStore):
    """A store that is only read. What is asked for is looked at first; raises `Unreadable`."""

    limits: Limits
    packing: Packing

    @classmethod
    def at(cls, root: Path, packing: Packing, limits: Limits) -> Files:
        """The store in a folder."""
        found = cls(root, read_only=True)
        found.limits, found.packing = limits, packing
        return found

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        size = inside(self.root, key)
        if size is None:
            return None
        wanted = size if byte_range is None else 0
        if isinstance(byte_range, RangeByteRequest):
            wanted = byte_range.end - byte_range.start
        if wanted > self.limits.file_bytes:
            raise Unreadable(f"{key}: {wanted:,} bytes are more than the limit of {self.limits.file_bytes:,}")
        found = await super().get(key, prototype, byte_range)
        if found is not None and key.rpartition("/")[2] not in DESCRIPTIONS and not isinstance(byte_range, SuffixByteRequest):
            content = found.as_numpy_array().view(np.uint8)
            pieces = _sharded(content, self.packing) if self.packing.pieces and byte_range is None else [content]
            for piece in pieces:
                _refuse_unsound(piece.tobytes(), self.packing, self.limits)
        return found


def _sharded(content: np.ndarray, packing: Packing) -> list[np.ndarray]:
    """The pieces of a whole shard, by the index at its end."""
    index = content[len(content) - 16 * packing.pieces - packing.checksums :][: 16 * packing.pieces]
    if len(content) < 16 * packing.pieces + packing.checksums:
        raise Unreadable("truncated: a shard is shorter than its index")
    places = index.copy().view("<u8").reshape(-1, 2)
    return [content[start : start + size] for start, size in places.tolist() if start != ABSENT]


def _refuse_unsound(piece: bytes, packing: Packing, limits: Limits) -> None:
    """Codecs take the memory that a piece asks for, and Blosc reads as far as it says: look first at what it would become."""
    claimed = 0
    if packing.codec == "blosc":
        if not 16 <= int.from_bytes(piece[12:16], "little") <= len(piece) - packing.tail:
            raise Unreadable("truncated: a piece is shorter than it says")
        claimed = int.from_bytes(piece[4:8], "little")
    elif packing.codec == "lz4":
        claimed = int.from_bytes(piece[:4], "little")
    elif packing.codec in ("gzip", "zlib") and len(piece) * PACKED > limits.file_bytes:
        claimed = len(zlib.decompressobj(wbits=47).decompress(piece, packing.room + 1))
    elif packing.codec == "zstd":
        claimed = _zstd(piece)
        if claimed < 0:
            zstd.decompress(piece, bytearray(packing.room))
    if claimed > packing.room:
        raise Unreadable(f"a piece unpacks to more than the {packing.room:,} bytes that the array says")


def _zstd(piece: bytes) -> int:
    """Bytes that a frame says it becomes; -1 where it does not say."""
    if len(piece) < 6:
        return 0
    head = piece[4]
    single, width = head >> 5 & 1, (0, 2, 4, 8)[head >> 6]
    width = width or single
    start = 5 + (1 - single) + (0, 1, 2, 4)[head & 3]
    size = int.from_bytes(piece[start : start + width], "little") + (256 if width == 2 else 0)
    return size if width else -1
