"""Films: any frames by their numbers, the very ones that decoding from the beginning gives."""

from __future__ import annotations

import io
import struct
import sys

import av
import numpy as np
import pytest
from tests.unit.broken_files import refused

from tacit.core.errors import TacitError
from tacit.data.kinds.formats import video
from tacit.data.payload import Limits, Unreadable

RANDOM = np.random.default_rng(0)
FORMS = {
    "mp4": ("mp4", "libx264", {"g": "12"}),
    "mp4 with open groups": ("mp4", "libx264", {"g": "12", "x264-params": "open-gop=1:bframes=3"}),
    "mov": ("mov", "mpeg4", {"g": "12", "bf": "2"}),
    "avi": ("avi", "mpeg4", {"g": "12"}),
    "avi without times": ("avi", "libx264", {"g": "12"}),
    "mkv": ("matroska", "libx264", {"g": "12"}),
    "webm vp8": ("webm", "libvpx", {"g": "12", "auto-alt-ref": "1", "lag-in-frames": "16"}),
    "webm vp9": ("webm", "libvpx-vp9", {"g": "12"}),
    "gif": ("gif", "gif", {}),
}
GAPS = (5, 6, 20)
"""Frames that are left out, so that the rate varies."""


def film(form: str = "mp4", count: int = 40, left_out: tuple[int, ...] = GAPS, noise: int = 20, **more) -> bytes:
    """A bright square that wanders over noise, at 25 frames per second."""
    (container, codec, options), size = FORMS[form], (32, 48)
    written = io.BytesIO()
    with av.open(written, "w", format=container, options=more) as file:
        stream = file.add_stream(codec, rate=25, options=options)
        stream.height, stream.width = size
        stream.pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
        stream.codec_context.thread_count = 1
        for number in range(count):
            picture = np.random.default_rng(number).integers(0, noise + 1, (*size, 3), np.uint8)
            picture[number % 20 : number % 20 + 10, number : number + 8] = 6 * number % 256
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = number
            if number not in left_out:
                file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return written.getvalue()


def decoded(content: bytes) -> np.ndarray:
    with av.open(io.BytesIO(content)) as file:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])


@pytest.mark.parametrize("form", FORMS)
def test_frames_are_those_of_decoding_everything_whatever_was_left_out(form):
    content = film(form)
    whole, known = decoded(content), video.header(content)
    assert known.extent == whole.shape[1:3]
    assert len(known.times) == len(whole) == 37
    for _ in range(4):
        frames = RANDOM.integers(0, len(whole), 5)
        assert np.array_equal(video.read(content, frames, known), whole[frames])
    assert np.array_equal(video.read(content, [36, 0, 36]), whole[[36, 0, 36]])


@pytest.mark.parametrize("form", ["mp4", "mkv", "webm vp9", "gif"])
def test_times_follow_an_uneven_rate(form):
    known = video.header(film(form))
    expected = np.delete(np.arange(40), GAPS) / 25
    assert np.abs(known.times - expected).max() < 0.011  # a GIF counts in hundredths
    assert known.fps == pytest.approx(36 / expected[-1], rel=0.01)
    assert known.duration == pytest.approx(1.6, abs=0.05)


def test_a_header_that_lies_about_its_frames_is_not_believed():
    content = bytearray(film("avi", left_out=()))
    at = content.index(b"avih") + 8 + 16
    struct.pack_into("<I", content, at, 1 << 31)
    at = content.index(b"strh") + 8 + 32
    struct.pack_into("<I", content, at, 1 << 31)
    assert len(video.header(bytes(content)).times) == 40


@pytest.mark.parametrize("form", ["avi", "mkv", "webm vp8", "webm vp9", "gif", "mp4"])
def test_of_a_film_that_breaks_off_every_frame_that_is_counted_can_be_read(form):
    more = {"movflags": "frag_keyframe+empty_moov"} if form == "mp4" else {}
    content = film(form, noise=200, **more)
    for share in (0.9, 0.75, 0.6):
        cut = content[: int(len(content) * share)]
        known = video.header(cut)
        assert 0 < len(known.times) <= 37
        frames = video.read(cut, np.arange(len(known.times)), known)
        assert np.array_equal(frames[:5], decoded(content)[:5])


@pytest.mark.parametrize("form", ["mkv", "webm vp9", "mp4 with open groups"])
def test_of_a_film_cut_out_of_another_every_frame_that_is_counted_can_be_read(form):
    content, written = film(form, left_out=()), io.BytesIO()
    with av.open(io.BytesIO(content)) as source, av.open(written, "w", format="matroska") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in [packet for packet in source.demux(video=0) if packet.size][4:]:
            packet.stream = stream
            target.mux(packet)
    cut = written.getvalue()
    known = video.header(cut)
    assert 28 <= len(known.times) <= 36
    assert np.array_equal(video.read(cut, range(len(known.times)), known)[-28:], decoded(content)[-28:])


def test_an_mp4_without_its_table_of_frames_is_refused():
    content = film()
    with pytest.raises(Unreadable, match="a broken film: "):
        video.header(content[: len(content) // 2])


def test_a_film_held_upright_is_turned():
    content = bytearray(film())
    at = content.index(b"tkhd") + 4 + 40
    one = 1 << 16
    struct.pack_into(">9i", content, at, 0, one, 0, -one, 0, 0, 0, 0, 1 << 30)  # a quarter turn clockwise
    known = video.header(bytes(content))
    assert known.extent == (48, 32)
    assert np.array_equal(video.read(bytes(content), [9])[0], np.rot90(decoded(bytes(content))[9], -1))


def test_transparency_is_laid_on_white():
    written = io.BytesIO()
    with av.open(written, "w", format="mov") as file:
        stream = file.add_stream("png", rate=5)
        stream.width = stream.height = 16
        stream.pix_fmt = "rgba"
        picture = np.zeros((16, 16, 4), np.uint8)
        picture[:8, :, 3] = 255
        frame = av.VideoFrame.from_ndarray(picture, format="rgba")
        frame.pts = 0
        file.mux(stream.encode(frame))
        file.mux(stream.encode())
    shown = video.read(written.getvalue(), [0])[0]
    assert (shown[:8] == 0).all()
    assert (shown[8:] == 255).all()


def test_a_part_is_decoded_and_not_what_lies_before_it(monkeypatch):
    content, seen = film("mp4", count=100, left_out=()), []
    known, read = video.header(content), video._decoded
    monkeypatch.setattr(video, "_decoded", lambda *given: (seen.append(frame) or frame for frame in read(*given)))
    video.read(content, np.arange(80, 84), known)
    assert len(seen) <= 12


def test_more_than_the_limits_is_refused_before_memory_is_taken():
    content = film(left_out=())
    with pytest.raises(Unreadable, match="limit of 1,000 pixels"):
        video.header(content, Limits(pixels=1000))
    with pytest.raises(Unreadable, match="limit of 10,000 bytes"):
        video.read(content, range(10), limits=Limits(file_bytes=10_000))
    gif = bytearray(film("gif"))
    struct.pack_into("<HH", gif, 6, 65535, 65535)
    with pytest.raises(Unreadable, match="limit of"):
        video.header(bytes(gif))


def test_frames_that_are_not_there_are_named():
    with pytest.raises(Unreadable, match=r"frames \[3, 40\] were asked for of a film of 40"):
        video.read(film(left_out=()), [3, 40])


def test_containers_that_are_not_listed_are_not_opened(monkeypatch):
    monkeypatch.setitem(FORMS, "ts", ("mpegts", "libx264", {}))
    content = film("ts")
    with pytest.raises(Unreadable, match="a broken film"):
        video.header(content)
    monkeypatch.setattr(video, "CONTAINERS", f"{video.CONTAINERS},mpegts")
    assert len(video.header(content).times) > 30


def test_content_may_lie_in_memory_in_a_file_or_behind_a_path(tmp_path):
    content, path = film(), tmp_path / "x.mp4"
    path.write_bytes(content)
    with path.open("rb") as file:
        assert np.array_equal(video.read(file, [7]), video.read(content, [7]))
        assert not file.closed
    assert np.array_equal(video.read(path, [7]), video.read(content, [7]))


def test_without_pyav_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(TacitError, match=r"pip install 'tacit\[video\]'"):
        video.header(b"\0\0\0\x18ftypmp42")


@pytest.mark.parametrize("form", ["mp4", "avi", "mkv", "webm vp8", "webm vp9", "gif", "mov"])
def test_broken_films_are_read_or_refused_in_one_line(form):
    limits = Limits(pixels=100_000, file_bytes=1 << 22)

    def read(content: bytes) -> None:
        known = video.header(content, limits)
        assert np.isfinite(known.times).all()
        clip = video.read(content, [0, len(known.times) - 1], known, limits)
        assert clip.shape == (2, *known.extent, 3)

    assert refused(read, film(form, count=16)) > 0
