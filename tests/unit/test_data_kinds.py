"""The image kind: what is decoded is what the file says, whole, upright, in its own depth."""

from __future__ import annotations

import io
import struct
import sys
import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tacit.core.errors import TacitError
from tacit.data.kinds import image
from tacit.data.kinds.kind import Form, choose, kind_named, thumbnail
from tacit.data.payload import Limits, Unreadable
from tacit.data.spec import Batch

RANDOM = np.random.default_rng(0)
DEEP_PNG = imagecodecs.png_encode(np.zeros((6, 7, 3), np.uint16))


def noise(*shape: int, dtype: str = "uint8") -> np.ndarray:
    return RANDOM.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def file(array_or_picture, form: str = "PNG", **options) -> bytes:
    picture = array_or_picture if isinstance(array_or_picture, Image.Image) else Image.fromarray(array_or_picture)
    written = io.BytesIO()
    picture.save(written, form, **options)
    return written.getvalue()


def tiff(array: np.ndarray, **options) -> bytes:
    written = io.BytesIO()
    tifffile.imwrite(written, array, **options)
    return written.getvalue()


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "WEBP", "PPM", "TGA", "GIF", "JPEG2000"])
def test_lossless_formats_give_the_pixels_that_were_written(form):
    array = noise(9, 13, 3) // 200 * 200 if form == "GIF" else noise(9, 13, 3)
    options = {"lossless": True} if form == "WEBP" else {}
    extension = {"TGA": "tga"}.get(form, "bin")
    decoded = image.decode(file(array, form, **options), name=f"x.{extension}")
    assert decoded.dtype == np.uint8
    assert np.array_equal(decoded, array)


def test_grey_keeps_one_channel():
    array = noise(6, 7)
    assert np.array_equal(image.decode(file(array)), array[..., None])


def test_sixteen_bit_grey_keeps_its_sixteen_bits():
    array = noise(6, 7, dtype="uint16")
    for form in ("PNG", "TIFF"):
        decoded = image.decode(file(array, form))
        assert decoded.dtype == np.uint16
        assert np.array_equal(decoded, array[..., None])


@pytest.mark.parametrize("channels", [3, 4, 2])
def test_sixteen_bit_colour_png_keeps_its_sixteen_bits_and_its_transparency_is_laid_on_white(channels):
    array = noise(6, 7, channels, dtype="uint16")
    decoded = image.decode(imagecodecs.png_encode(array))
    assert decoded.dtype == np.uint16
    expected = array
    if channels in (2, 4):
        alpha = array[..., -1:] / 65535
        expected = np.rint(array[..., :-1] * alpha + 65535 * (1 - alpha))
    assert decoded.shape == expected.shape
    assert np.abs(decoded.astype(np.int64) - expected.astype(np.int64)).max() <= (0 if channels == 3 else 1)
    assert image.form(imagecodecs.png_encode(array)).dtype == "uint16"


def test_sixteen_bit_colour_png_is_held_upright():
    array = noise(6, 7, 3, dtype="uint16")
    exif = Image.Exif()
    exif[0x0112] = 6
    chunk = b"eXIf" + exif.tobytes()[6:]
    content = imagecodecs.png_encode(array)
    at = content.index(b"IDAT") - 4
    chunk = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    assert np.array_equal(image.decode(content[:at] + chunk + content[at:]), np.rot90(array, -1))


def test_sixteen_bit_colour_png_asks_for_what_reads_it_and_never_comes_with_eight(monkeypatch):
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    for read in (image.form, image.decode):
        with pytest.raises(Unreadable, match="pip install imagecodecs"):
            read(DEEP_PNG)


@pytest.mark.parametrize("shape", [(6, 7, 3), (6, 7, 7), (5, 16, 17), (16, 17, 2)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_many_channel_tiffs_keep_every_channel(shape, dtype):
    array = noise(*shape, dtype=dtype)
    planar = shape[0] < shape[1] and shape[0] < shape[2]
    options = {"photometric": "rgb"} if shape[-1] == 3 else {"photometric": "minisblack"}
    if not planar:
        options["planarconfig"] = "contig"
    decoded = image.decode(tiff(array, **options))
    assert decoded.dtype == array.dtype
    assert np.array_equal(decoded, array.transpose(1, 2, 0) if planar else array)


def test_float_tiffs_stay_floats_and_nan_is_refused():
    array = RANDOM.normal(size=(8, 9)).astype(np.float32)
    assert np.array_equal(image.decode(tiff(array)), array[..., None])
    array[3, 3] = np.nan
    with pytest.raises(Unreadable, match="NaN"):
        image.decode(tiff(array))
    with pytest.raises(Unreadable, match="NaN"):
        image.decode(np.full((4, 4), np.inf, dtype=np.float32))


def test_one_bit_pictures_are_black_and_white():
    array = noise(8, 8) > 127
    assert set(np.unique(image.decode(file(Image.fromarray(array))))) == {0, 255}
    assert np.array_equal(image.decode(array), image.decode(file(Image.fromarray(array))))


def test_palettes_are_resolved_to_their_colours():
    picture = Image.new("P", (4, 4), 1)
    picture.putpalette([0, 0, 0, 10, 200, 30] + [0] * 762)
    assert np.array_equal(image.decode(file(picture)), np.broadcast_to(np.uint8([10, 200, 30]), (4, 4, 3)))


def test_transparent_places_become_white():
    see_through = np.zeros((4, 4, 4), dtype=np.uint8)
    assert (image.decode(file(see_through)) == 255).all()
    grey = image.decode(file(Image.fromarray(np.zeros((4, 4, 2), dtype=np.uint8), "LA")))
    assert grey.shape == (4, 4, 1)
    assert (grey == 255).all()
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([0] * 768)
    assert (image.decode(file(palette, transparency=0)) == 255).all()
    half = np.full((2, 2, 4), (0, 0, 0, 128), dtype=np.uint8)
    assert abs(int(image.decode(file(half))[0, 0, 0]) - 127) <= 1


def test_cmyk_is_turned_into_rgb():
    decoded = image.decode(file(Image.new("CMYK", (8, 8), (0, 0, 0, 0)), "JPEG"))
    assert decoded.shape == (8, 8, 3)
    assert decoded.min() > 250


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_obeyed_as_pillow_does(orientation):
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    content = file(noise(6, 10, 3), "PNG", exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))))
    assert np.array_equal(image.decode(content), upright)
    assert image.form(content).extent == upright.shape[:2]
    assert image.decode(content, side=3).shape == ((3, 5, 3) if orientation < 5 else (5, 3, 3))


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 64))
def test_the_shorter_side_is_at_most_what_was_asked_and_nothing_grows(height, width, side):
    decoded = image.decode(np.zeros((height, width, 3), dtype=np.uint8), side=side)
    h, w = decoded.shape[:2]
    assert h <= height
    assert w <= width
    assert min(h, w) <= max(side, 1)
    assert max(h, w) <= image.LONGEST * side + 1
    if min(height, width) <= side and max(height, width) <= image.LONGEST * side:
        assert (h, w) == (height, width)


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_a_shrunk_picture_looks_like_the_whole_one(form):
    ramp = np.linspace(0, 255, 256).astype(np.uint8)
    array = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], ramp[::-1, None]), axis=2)
    small = image.decode(file(array, form), side=16)
    assert small.shape == (16, 16, 3)
    expected = array.reshape(16, 16, 16, 16, 3).mean(axis=(1, 3))
    assert np.abs(small - expected)[1:-1, 1:-1].max() < 8


def test_shrinking_sixteen_bits_and_floats_never_leaves_the_range_that_was_there():
    for dtype in (np.uint16, np.float32):
        array = np.zeros((64, 64, 5), dtype=dtype)
        array[20:40] = 60000
        small = image.decode(array, side=16)
        assert small.dtype == dtype
        assert small.min() == 0
        assert small.max() == 60000


def test_forms_agree_on_rgb_where_grey_and_rgb_are_mixed():
    grey, colour = Form(1, "uint8", (8, 8)), Form(3, "uint8", (8, 8))
    assert image.agree([grey] * 9 + [colour]).channels == 3
    assert image.agree([grey] * 3).channels == 1
    assert image.agree([Form(5, "uint16", (8, 8))] * 3 + [colour] * 2).channels == 5
    assert image.agree([grey, Form(1, "uint16", (8, 8))]).dtype == "uint16"


def test_grey_is_repeated_and_any_other_number_of_channels_is_refused():
    wanted = Form(3, "uint8", (6, 7))
    array = noise(6, 7)
    assert np.array_equal(image.decode(file(array), wanted), np.repeat(array[..., None], 3, axis=2))
    with pytest.raises(Unreadable, match=r"5 channel\(s\), the other samples have 3"):
        image.decode(noise(6, 7, 5), wanted)
    with pytest.raises(Unreadable, match=r"3 channel\(s\), the other samples have 1"):
        image.decode(noise(6, 7, 3), Form(1, "uint8", (6, 7)))


def test_depth_is_never_lost_in_silence():
    eight, sixteen = noise(6, 7), noise(6, 7, dtype="uint16")
    assert np.array_equal(image.decode(eight, Form(1, "uint16", (6, 7)))[..., 0], eight.astype(np.uint16) * 257)
    with pytest.raises(Unreadable, match="uint16"):
        image.decode(sixteen, Form(1, "uint8", (6, 7)))


@pytest.mark.parametrize("shape", [(3, 20, 30), (20, 30, 3), (1, 20, 30), (7, 20, 30), (20, 30, 7)])
def test_channels_of_an_array_are_found_first_or_last(shape):
    array = noise(*shape)
    decoded = image.decode(array)
    assert decoded.shape == (20, 30, min(shape))
    assert np.array_equal(decoded, array if shape[0] == 20 else array.transpose(1, 2, 0))


def test_collating_pads_at_the_bottom_and_on_the_right():
    small, large = noise(3, 4, 5), noise(3, 6, 2)
    batch = Batch.padded(torch.tensor([7, 9]), [small, large])
    assert batch.data.shape == (2, 3, 6, 5)
    assert batch.sizes.tolist() == [[4, 5], [6, 2]]
    assert np.array_equal(batch.data[0, :, :4, :5], small)
    assert batch.data[0, :, 4:].sum() == 0
    assert batch.data[1, :, :, 2:].sum() == 0


def test_thumbnails_are_small_pngs_of_what_the_values_mean():
    shown = Image.open(io.BytesIO(thumbnail(image, np.full((60, 90, 1), 3000, dtype=np.uint16), 30, low=0, high=6000)))
    assert shown.size == (30, 20)
    assert abs(np.asarray(shown).mean() - 127) < 2
    assert Image.open(io.BytesIO(thumbnail(image, noise(50, 50, 7), 16))).mode == "RGB"


def test_bombs_are_refused_by_their_header():
    tiny = file(np.zeros((1, 1), dtype=np.uint8))
    import struct
    import zlib

    header = b"IHDR" + struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0)
    bomb = tiny[:12] + header + struct.pack(">I", zlib.crc32(header)) + tiny[33:]
    with pytest.raises(Unreadable, match="limit"):
        image.decode(bomb)
    with pytest.raises(Unreadable, match="limit of 100 pixels"):
        image.decode(file(noise(20, 20)), limits=Limits(pixels=100))
    with pytest.raises(Unreadable, match="limit"):
        image.decode(tiff(noise(30, 30, 40)), limits=Limits(pixels=2000))


def test_text_in_the_clothes_of_a_picture_is_refused():
    for content in (b"", b"hello", b"<html></html>", b"\xff\xd8\xff", bytes(1000), RANDOM.bytes(1000)):
        with pytest.raises(Unreadable):
            image.decode(content, name="x.jpg")


def test_no_format_that_starts_another_program_is_opened():
    with pytest.raises(Unreadable):
        image.decode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", name="x.eps")
    assert ".eps" not in image.extensions()


def test_kinds_are_chosen_by_what_is_there():
    assert choose(["a.png", "b.txt"], None)[0] is image
    assert choose([], file(noise(4, 4)))[0] is image
    assert choose(["a.txt"], None)[0] is None
    with pytest.raises(TacitError, match="did you mean 'image'"):
        kind_named("imge")
