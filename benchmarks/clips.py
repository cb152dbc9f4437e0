"""Clips out of films, decoding no more than they need, beside decoding whole films with PyAV and taking frames out of them.

python benchmarks/clips.py [--films 16] [--pairs 5]

Films of ten seconds of 320x240 pixels are made by the encoders that most films come from, with the distances between key
frames that these usually have. A clip is 16 frames, every second one, from a random start; tacit's come through the loader and
its window, as in pretraining. Goal: three times as many clips/s.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import torch
from feeding import beside
from pairs import asked, keep
from PIL import Image
from torch import Tensor

from tacit.data.window import Clip

EXTENT, SECONDS = (240, 320), 10
FRAMES, STRIDE, BATCH = 16, 2, 8
SPAN = (FRAMES - 1) * STRIDE + 1


class Form(NamedTuple):
    """How films are written: what wrote such ones, name and options of the encoder, frames per second, and to a key frame."""

    said: str
    codec: str
    options: dict[str, str]
    rate: int
    distance: int


FORMS = {
    "mp4": Form("H.264 as of a phone", "libx264", {}, 30, 30),
    "mkv": Form("H.264 as x264 has it", "libx264", {}, 25, 250),
    "webm": Form("VP9 as libvpx has it", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}, 25, 128),
    "avi": Form("MPEG-4 as ffmpeg has it", "mpeg4", {}, 25, 12),
}


def scene(generator: np.random.Generator, count: int) -> Iterator[np.ndarray]:
    """A camera that moves over a picture, things that move in it, and noise."""
    height, width = EXTENT
    coarse = Image.fromarray(generator.integers(0, 256, (30, 40, 3), dtype=np.uint8))
    wide = np.asarray(coarse.resize((2 * width, 2 * height), Image.Resampling.BICUBIC))
    noise = generator.integers(-4, 5, (height, width, 3))
    turns, colours = generator.uniform(0.5, 2, (6, 2)), generator.integers(0, 256, (5, 3))
    for time in np.arange(count) / count:
        at = np.rint((np.sin(2 * np.pi * turns * time) + 1) / 2 * (height - 40, width - 40)).astype(int)
        y, x = at[0]
        frame = wide[y : y + height, x : x + width].astype(np.int16)
        for (top, left), colour in zip(at[1:], colours, strict=True):
            frame[top : top + 40, left : left + 40] = colour
        yield (frame + np.roll(noise, generator.integers(width), axis=1)).clip(0, 255).astype(np.uint8)


def make(folder: Path, ending: str, count: int) -> None:
    """So many films."""
    form, generator = FORMS[ending], np.random.default_rng(0)
    folder.mkdir()
    for number in range(count):
        with av.open(str(folder / f"{number:03d}.{ending}"), "w") as film:
            stream = film.add_stream(form.codec, rate=Fraction(form.rate), options={"g": str(form.distance), **form.options})
            stream.height, stream.width = EXTENT
            stream.pix_fmt, stream.bit_rate = "yuv420p", 1_000_000
            for frame in scene(generator, SECONDS * form.rate):
                film.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            film.mux(stream.encode())


def whole(path: Path) -> np.ndarray:
    """`[T, H, W, 3]` of all frames, as PyAV's manual has it."""
    with av.open(str(path)) as film:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)])


def clip(path: Path) -> Tensor:
    """A random clip of a film that is decoded whole: uint8 `[3, T, H, W]`."""
    frames = whole(path)
    start = int(np.random.default_rng().integers(len(frames) - SPAN + 1))
    return torch.from_numpy(frames[start : start + SPAN : STRIDE]).movedim(-1, 0)


def holds(path: Path, found: Tensor) -> bool:
    """Whether this clip is one of the film, bit by bit."""
    frames, wanted = whole(path), found.movedim(0, -1).numpy()
    return any(np.array_equal(frames[at : at + SPAN : STRIDE], wanted) for at in range(len(frames) - SPAN + 1))


def case(place: Path, ending: str, films: int, pairs: int) -> dict[str, Any]:
    """One sort of film."""
    form = FORMS[ending]
    make(place / ending, ending, films)
    what = f"clips of {FRAMES} frames of .{ending} films ({form.said}, a key frame in {form.distance}), {SECONDS} s each"
    window = {"clip": Clip(FRAMES, STRIDE)}
    other = "PyAV, whole films and then frames of them"
    return beside(what, other, place / ending, "video", clip, BATCH, pairs, 1 / 3, window, same=holds)


def main() -> None:
    """All sorts of films."""
    words = asked(pairs=5, films=16)
    with tempfile.TemporaryDirectory() as place:
        os.environ["TACIT_CACHE"] = f"{place}/cache"
        keep("clips", {"rows": [case(Path(place), ending, words.films, words.pairs) for ending in FORMS]})


if __name__ == "__main__":
    main()
