"""Films through PyAV: any frames, by their numbers, without decoding what lies far from them.

The packets of a film are looked through once, without being decoded: their times, in order, number the frames, whatever the
header claims and however uneven the times are. Only `CONTAINERS` are opened: others (playlists) may name further files.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tacit.core.errors import said
from tacit.data.kinds.formats.content import DEFAULT_LIMITS, Content, guarded, length, missing, opened, refuse_large
from tacit.data.payload import Limits, Unreadable

if TYPE_CHECKING:
    from av import Packet, VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif"
EXTENSIONS = frozenset({".mp4", ".m4v", ".mov", ".3gp", ".avi", ".mkv", ".webm", ".gif"})

SHOWN = 0x10
"""The bit in a VP8 packet's first byte that says that its frame is shown, and not only referred to."""


@dataclass(frozen=True, eq=False)
class Film:
    """What is known of a film without decoding it (but for its first frame, which says how it is held).

    Attributes:
        extent: height and width when held upright, in pixels. Frames are RGB, uint8.
        fps: frames per second on average.
        duration: seconds from the first frame's beginning to the last one's end.
        times: `[T]` seconds at which each frame is shown, the first at 0.
        stamps: `[T]` the same in the file's own units; rising.
        starts: `[T]` the place in `times` of the frame that decoding has to begin with to get this one.
        seekable: whether frames can be told by their stamps; else they are counted from the beginning.
    """

    extent: tuple[int, int]
    fps: float
    duration: float
    times: np.ndarray
    stamps: np.ndarray
    starts: np.ndarray
    seekable: bool


@guarded
def header(content: Content, limits: Limits = DEFAULT_LIMITS) -> Film:
    """What the film is: its packets are read, its first frame decoded; and its last ones, where the file breaks off."""
    with _film(content, limits) as (container, stream):
        packets, broken = _packets(container, stream)
        rate = float(stream.average_rate or stream.guessed_rate or 25)
        tick = float(stream.time_base or 1 / rate)
        seekable = _seekable(container, stream)
    if len({p.stamp for p in packets} - {None}) < len(packets):
        packets = [_Packet(number, packet.key, 1) for number, packet in enumerate(packets)]
        tick, seekable = 1 / rate, False
    stamps, starts = _numbered(packets)
    with _film(content, limits) as (container, stream):
        first = next(_decoded(container, stream), None)
        if first is None:
            raise Unreadable("no frame of the film can be decoded")
        height, width, _ = _upright(_pixels(first, limits), first).shape
    if seekable and first.pts is not None and first.pts in stamps:
        # What leans on frames that were cut off before the beginning cannot be decoded.
        lost = int(np.searchsorted(stamps, first.pts))
        stamps, starts = stamps[lost:], np.maximum(starts[lost:] - lost, 0)
    else:
        seekable = False
    if broken:
        sound = _sound(content, stamps, starts, seekable, limits)
        stamps, starts = stamps[sound], starts[sound]
    if not len(stamps):
        raise Unreadable("no frame of the film can be decoded")
    times = (stamps - stamps[0]) * tick
    mean = float(times[-1]) / (len(times) - 1) if len(times) > 1 else 1 / rate
    duration = float(times[-1]) + (packets[-1].duration * tick or mean)
    return Film((height, width), 1 / mean, duration, times, stamps, starts, seekable)


@guarded
def read(
    content: Content, frames: Sequence[int] | np.ndarray, film: Film | None = None, limits: Limits = DEFAULT_LIMITS
) -> np.ndarray:
    """Frames of the film, upright: `[len(frames), H, W, 3]` uint8, transparency laid on white.

    Args:
        content: the film.
        frames: numbers from 0 to `len(film.times) - 1`, in any order.
        film: what `header` said of it, where that is known: the packets then need not be looked through again.
        limits: a frame may have so many pixels; all together, so many bytes.

    Raises:
        Unreadable: whatever is wrong, a frame that cannot be decoded included.
    """
    film = header(content, limits) if film is None else film
    numbers = np.asarray(frames, dtype=np.int64)
    count = len(film.stamps)
    if numbers.ndim != 1 or ((numbers < 0) | (numbers >= count)).any():
        raise Unreadable(f"frames {numbers.tolist()} were asked for of a film of {count}")
    refuse_large((len(numbers), *film.extent, 3), 1, limits)
    found: dict[int, np.ndarray] = {}
    for number, frame in _wanted(content, np.unique(numbers), film, limits):
        pixels = _upright(_pixels(frame, limits), frame)
        if pixels.shape[:2] != film.extent:
            raise Unreadable(f"the film changes its size: {pixels.shape[:2]} after {film.extent}")
        found[number] = pixels
    if lost := sorted(set(numbers.tolist()) - found.keys()):
        raise Unreadable(f"frame {lost[0]} of {count} cannot be decoded")
    clip = np.empty((len(numbers), *film.extent, 3), dtype=np.uint8)
    for row, number in zip(clip, numbers.tolist(), strict=True):
        row[:] = found[number]
    return clip


@contextmanager
def _film(content: Content, limits: Limits) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The file with its first film."""
    try:
        import av
        import av.error
    except ImportError:
        raise missing("a film", "PyAV", "video") from None
    with opened(content) as file:
        length(file)
        _refuse_large_gif(file.read(10), limits)
        file.seek(0)
        options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "", "max_pixels": str(limits.pixels)}
        try:
            with closing(av.open(file, mode="r", options=options)) as container:
                yield container, _stream(container, limits)
        except av.error.FFmpegError as problem:
            raise Unreadable(f"a broken film: {said(OSError(problem.errno, problem.strerror))}") from problem


def _stream(container: InputContainer, limits: Limits) -> VideoStream:
    """The first film in a file, to be decoded in one thread."""
    if not container.streams.video:
        raise Unreadable("a file without a film")
    stream = container.streams.video[0]
    if stream.codec_context is None:
        raise Unreadable("a film in a coding that is not known")
    height, width = stream.codec_context.height, stream.codec_context.width
    _refuse_large(height, width, limits)
    stream.codec_context.thread_count = 1
    stream.codec_context.options = {"max_pixels": str(limits.pixels)}
    return stream


def _refuse_large(height: int, width: int, limits: Limits) -> None:
    if height * width > limits.pixels:
        raise Unreadable(f"frames of {height}x{width} are more than the limit of {limits.pixels:,} pixels")


def _refuse_large_gif(head: bytes, limits: Limits) -> None:
    """A GIF's whole canvas is taken when the file is opened, before anybody can look at its size."""
    if head[:3] == b"GIF" and len(head) == 10:
        width, height = struct.unpack("<HH", head[6:])
        _refuse_large(height, width, limits)


@dataclass(frozen=True)
class _Packet:
    stamp: int | None
    key: bool
    duration: int


def _packets(container: InputContainer, stream: VideoStream) -> tuple[list[_Packet], bool]:
    """Those that show a frame, as they lie in the file; and whether it breaks off."""
    from av.error import FFmpegError

    found, broken = [], False
    hides = stream.codec_context.name.startswith(("vp8", "libvpx")) and "9" not in stream.codec_context.name
    try:
        for packet in container.demux(stream):
            if not packet.size or packet.is_discard or (hides and not memoryview(packet)[0] & SHOWN):
                continue
            broken |= packet.is_corrupt
            found.append(_Packet(packet.pts, packet.is_keyframe, packet.duration or 0))
    except FFmpegError:
        broken = True
    if not found:
        raise Unreadable("a film without frames")
    return found, broken


def _seekable(container: InputContainer, stream: VideoStream) -> bool:
    """AVI keeps no times: those of frames that change places are guesses. GIFs are small, and drawn over each other."""
    name = container.format.name
    return name != "gif" and not (name == "avi" and stream.codec_context.has_b_frames)


def _numbered(packets: list[_Packet]) -> tuple[np.ndarray, np.ndarray]:
    """Stamps in the order in which frames are shown, and for each the number of the key frame to begin with."""
    stamps = np.array([p.stamp for p in packets], dtype=np.int64)
    keys, before = [], [stamps[0], stamps[0]]
    for packet, stamp in zip(packets, stamps, strict=True):
        if packet.key:
            before = [before[1], stamp]
        # What follows a key frame in the file and is shown before it, leans on the one before as well.
        keys.append(before[1] if stamp >= before[1] else before[0])
    order = np.argsort(stamps)
    return stamps[order], np.searchsorted(stamps[order], np.array(keys)[order])


def _sound(content: Content, stamps: np.ndarray, starts: np.ndarray, seekable: bool, limits: Limits) -> np.ndarray:
    """`[T]` which frames are left of a film that breaks off: of those after its last key frame, what can be decoded."""
    places = np.arange(len(stamps))
    with _film(content, limits) as (container, stream):
        if not seekable:
            return places < sum(1 for _ in _decoded(container, stream))
        last = int(starts[-1])
        shown = [frame.pts for frame in _decoded(container, stream, int(stamps[last])) if frame.pts is not None]
        return (places < last) | (np.isin(stamps, shown) & (int(stamps[last]) in shown))


def _wanted(content: Content, numbers: np.ndarray, film: Film, limits: Limits) -> Iterator[tuple[int, VideoFrame]]:
    """Each frame with its number, as far as they can be decoded; `numbers` rise."""
    if not film.seekable:
        yield from _counted(content, numbers, limits)
        return
    left = dict(zip(film.stamps[numbers].tolist(), numbers.tolist(), strict=True))
    with _film(content, limits) as (container, stream):
        for start in np.unique(film.starts[numbers]):
            group = frozenset(film.stamps[numbers[film.starts[numbers] == start]].tolist())
            for frame in _decoded(container, stream, int(film.stamps[start]), group):
                if frame.pts in left:
                    yield left.pop(frame.pts), frame
                if frame.pts is None or frame.pts >= max(group):
                    break
    if left:  # where seeking led astray, the film is decoded from its beginning
        with _film(content, limits) as (container, stream):
            for frame in _decoded(container, stream):
                if frame.pts in left:
                    yield left.pop(frame.pts), frame
                if not left:
                    return


def _counted(content: Content, numbers: np.ndarray, limits: Limits) -> Iterator[tuple[int, VideoFrame]]:
    with _film(content, limits) as (container, stream):
        for number, frame in zip(range(int(numbers.max(initial=-1)) + 1), _decoded(container, stream), strict=False):
            if number in numbers:
                yield number, frame


def _decoded(
    container: InputContainer, stream: VideoStream, origin: int | None = None, wanted: frozenset[int] | None = None
) -> Iterator[VideoFrame]:
    """Sound frames as they are shown, from a stamp on or, of a film just opened, the beginning; broken packets are passed over.

    With `wanted`, other frames that nothing leans on are not decoded.
    """
    from av.error import FFmpegError

    if origin is not None:
        try:
            container.seek(origin, stream=stream, backward=True)
        except FFmpegError:
            return
    packets = container.demux(stream)
    while True:
        try:
            packet: Packet | None = next(packets, None)
        except FFmpegError:
            packet = None  # the file breaks off
        if wanted is not None and packet is not None:
            stream.codec_context.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
        try:
            frames = stream.decode(packet)
        except FFmpegError:
            frames = []
        yield from (frame for frame in frames if not frame.is_corrupt)
        if packet is None or not packet.size:
            return


def _pixels(frame: VideoFrame, limits: Limits) -> np.ndarray:
    """`[H, W, 3]` uint8 as it lies, transparency laid on white."""
    _refuse_large(frame.height, frame.width, limits)
    if not any(component.is_alpha for component in frame.format.components):
        return frame.to_ndarray(format="rgb24")
    pixels = frame.to_ndarray(format="rgba").astype(np.uint16)
    colours, alpha = pixels[..., :3], pixels[..., 3:]
    return ((colours * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def _upright(pixels: np.ndarray, frame: VideoFrame) -> np.ndarray:
    """Turned by the quarter turns that the film's header asks for."""
    return np.rot90(pixels, round((frame.rotation or 0) / 90))
