"""Pictures of named channels: every channel comes as it was written, alone or with the others."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import tifffile
from tests.unit.broken_files import refused

from tacit.data.kinds.formats import planes
from tacit.data.payload import Limits, Unreadable

RANDOM = np.random.default_rng(0)
STACK = RANDOM.integers(0, 60_000, (5, 16, 18), dtype=np.uint16)
STAINS = ("DAPI", "ER", "RNA", "Actin & Golgi", "Mito")


def tiff(array: np.ndarray = STACK, **options) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, array, **{"photometric": "minisblack", **options})
    return file.getvalue()


def named_pages() -> bytes:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for page, name in zip(STACK, STAINS, strict=True):
            writer.write(page, contiguous=False, metadata=None, extratags=[(planes.PAGE_NAME, "s", 0, name, True)])
    return file.getvalue()


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


FILES = {
    "ome": tiff(ome=True, metadata={"axes": "CYX", "Channel": {"Name": list(STAINS)}}),
    "ome packed": tiff(ome=True, metadata={"axes": "CYX", "Channel": {"Name": list(STAINS)}}, compression="zlib"),
    "imagej": tiff(imagej=True, metadata={"axes": "CYX", "Labels": list(STAINS)}),
    "pages": named_pages(),
    "contiguous": tiff(np.ascontiguousarray(STACK.transpose(1, 2, 0)), planarconfig="contig"),
    "npy": npy(STACK),
}


@pytest.mark.parametrize("form", FILES)
def test_channels_come_as_they_were_written_with_their_names(form):
    known = planes.header(FILES[form])
    numbered = tuple(f"channel {number}" for number in range(1, 6))
    named = form not in ("contiguous", "npy")
    assert known == planes.Planes(STAINS if named else numbered, "uint16", (16, 18), named)
    assert np.array_equal(planes.read(FILES[form]), STACK)
    assert np.array_equal(planes.read(FILES[form], [3, 0]), STACK[[3, 0]])


def test_pages_of_other_channels_are_not_decoded(monkeypatch):
    read, seen = tifffile.TiffPage.asarray, []
    monkeypatch.setattr(tifffile.TiffPage, "asarray", lambda page, **more: (seen.append(page.index), read(page, **more))[1])
    planes.read(FILES["pages"], [3])
    assert seen == [3]


def test_one_plain_page_is_one_channel_and_colours_are_three():
    grey, colours = STACK[0].astype(np.uint8), STACK[:3].astype(np.uint8)
    assert np.array_equal(planes.read(tiff(grey)), grey[None])
    assert np.array_equal(planes.read(tiff(colours.transpose(1, 2, 0), photometric="rgb")), colours)


def test_floats_and_signed_numbers_come_as_floats():
    array = RANDOM.normal(size=(4, 8, 8)).astype(np.float32)
    assert np.array_equal(planes.read(tiff(array)), array)
    assert planes.read(npy((100 * array).astype(np.int16)), [1]).dtype == np.float32


def test_a_broken_description_does_not_spoil_the_pixels():
    content = FILES["ome"].replace(b"<Channel ", b"<Channel<")
    assert planes.header(content).names[0] == "channel 1"
    assert np.array_equal(planes.read(content), STACK)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"\x89PNG\r\n\x1a\n", "neither a TIFF nor an array"),
        (npy(STACK[0]), r"\[C, H, W\] was expected"),
        (npy(STACK).replace(b"(5, 16, 18)", b"(9, 9999999, 9999999)") + bytes(99), "claimed by"),
        (npy(np.array([[["x"]]])), "no numbers"),
        (FILES["pages"][:-40], "truncated"),
    ],
)
def test_what_is_no_picture_of_channels_is_refused_with_the_reason(content, reason):
    with pytest.raises(Unreadable, match=reason):
        planes.read(content)


def test_more_than_the_limits_is_refused_before_memory_is_taken():
    with pytest.raises(Unreadable, match="the limit of 100 pixels"):
        planes.header(FILES["pages"], Limits(pixels=100))
    with pytest.raises(Unreadable, match="more than the limit of 4,000 bytes"):
        planes.read(tiff(np.zeros((5, 64, 64), np.uint8), compression="zlib"), limits=Limits(file_bytes=4000))
    content = bytearray(FILES["pages"])
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        places = [page.tags[name].offset for page in file.pages for name in ("ImageWidth", "ImageLength")]
    for at in places:
        struct.pack_into("<2xHII", content, at, 4, 1, 1_000_000)
        content[at : at + 2] = FILES["pages"][at : at + 2]
    for read in (planes.header, planes.read):
        with pytest.raises(Unreadable, match="5 channels of 1000000x1000000"):
            read(bytes(content))


def test_a_channel_that_is_not_there_is_named():
    with pytest.raises(Unreadable, match=r"channels \[5\] were asked for of a picture with 5"):
        planes.read(FILES["npy"], [5])


@pytest.mark.parametrize("form", FILES)
def test_broken_pictures_are_read_or_refused_in_one_line(form):
    limits = Limits(pixels=100_000, file_bytes=1 << 22)

    def read(content: bytes) -> None:
        known = planes.header(content, limits)
        found = planes.read(content, None, limits)
        assert found.shape == (len(known.names), *known.extent)
        assert found.dtype == known.dtype

    assert refused(read, FILES[form]) > 0
