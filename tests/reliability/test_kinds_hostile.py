"""Hostile files of the kinds beside images that somebody thought of; blind mutations are in `test_artefacts_hostile.py`."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np
import pytest
from tests.fuzz.seeds_kinds import written

from tacit.data.kinds.formats import clouds, hdf5
from tacit.data.payload import Limits, Unreadable

VOLUME, CLOUD = (4, 4, 4), (16, 4)
READERS: dict[tuple[int, ...], Callable[..., np.ndarray]] = {VOLUME: hdf5.read, CLOUD: clouds.read}
SMALL = Limits(file_bytes=1 << 20)

each_kind = pytest.mark.parametrize("shape", READERS, ids=["volume", "cloud"])


def archive(shape: tuple[int, ...], piece: bytes | None = None, skipped: int = 0, **options: Any) -> bytes:
    """An array of zeros called `points`, or of one piece that is stored as it is."""

    def write(file: Any) -> None:
        with h5py.File(file, "w") as into:
            made = into.create_dataset("points", shape, "u1", **{"chunks": shape, **options})
            if piece is not None:
                made.id.write_direct_chunk((0,) * len(shape), piece, skipped)

    return written(write)


@each_kind
def test_a_piece_of_hdf5_that_unpacks_to_anything_is_refused_before_it_is_unpacked(shape: tuple[int, ...]) -> None:
    bomb = archive(shape, zlib.compress(bytes(64 << 20), 9), compression="gzip")
    with pytest.raises(Unreadable, match="unpacks to more than the 68 bytes that it says"):
        READERS[shape](bomb, limits=SMALL)


@each_kind
def test_sound_pieces_of_hdf5_are_read_however_much_they_could_become(shape: tuple[int, ...]) -> None:
    values, tight = bytes(range(64)), Limits(file_bytes=40_000)
    for options in ({}, {"shuffle": True}, {"fletcher32": True, "shuffle": True}):
        content = archive(shape, None, 0, **options, compression="gzip")
        assert not READERS[shape](content, limits=tight).any()
    unpacked = READERS[shape](archive(shape, values, skipped=1, compression="gzip"), limits=tight)
    assert unpacked.ravel().tolist() == list(values)


@each_kind
def test_hdf5_that_is_packed_twice_is_refused(shape: tuple[int, ...]) -> None:
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_chunk(shape)
    for _ in range(2):
        plan.set_deflate(9)

    def write(file: Any) -> None:
        with h5py.File(file, "w") as into:
            space = h5py.h5s.create_simple(shape)
            h5py.h5d.create(into.id, b"points", h5py.h5t.STD_U8LE, space, plan)

    with pytest.raises(Unreadable, match="packed more than once"):
        READERS[shape](written(write))


@pytest.mark.timeout(20)
def test_hdf5_in_millions_of_pieces_is_refused_and_its_parts_are_read() -> None:
    content = archive((120, 120, 120), chunks=(1, 1, 1)) + bytes(10_000)
    with pytest.raises(Unreadable, match="more than 1,048,576 pieces; take a part"):
        hdf5.read(content)
    assert hdf5.read(content, (slice(2), slice(3), slice(110, None))).shape == (2, 3, 10, 1)
