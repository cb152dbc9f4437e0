"""Views of films: one box, one light and one mirror for all frames; the same from a store and from files."""

from __future__ import annotations

import io
from functools import cache

import av
import numpy as np
import pytest
import torch

from tacit.core.draws import Draws
from tacit.core.errors import TacitError
from tacit.data import store
from tacit.data.kinds.formats import video
from tacit.data.loader import Loader
from tacit.data.open import open_data
from tacit.data.spec import Batch, Spec
from tacit.data.window import Clip, Stretch
from tacit.views.image import Blur, CentreView, ImageView, Jitter
from tacit.views.sight import sight
from tacit.views.video import ClipView, MiddleView
from tacit.views.view import windows

SPEC = Spec("video", 3, (12, 16, 24))
BUSY = ImageView(8, area=(0.3, 1.0), flip=0.5, jitter=Jitter(0.4, 0.4, 0.4, 0.2, probability=0.9), grey=0.3)
PLAIN = ImageView(8, area=(1.0, 1.0), aspect=(1.0, 1.0), flip=0.0, normalise="none")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TACIT_CACHE", str(tmp_path / "cache"))


def frames(row: int, count: int, height: int = 16, width: int = 24) -> np.ndarray:
    """A wandering bar over noise; the first pixel of every frame is its number."""
    array = np.random.default_rng(row).integers(0, 90, (count, height, width, 3), dtype=np.uint8)
    for number, frame in enumerate(array):
        frame[:, (row + number) % width] = 220
        frame[0, 0] = number
    return array


class Films:
    """Films that keep every pixel, of different lengths."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, row: int) -> bytes:
        if not 0 <= row < len(self):
            raise IndexError
        return film(row)


@cache
def film(row: int) -> bytes:
    array, written = frames(row, 9 + row % 4), io.BytesIO()
    with av.open(written, "w", format="matroska") as file:
        stream = file.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = 16, 24, "bgr0"
        for frame in array:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode())
    return written.getvalue()


def batch(count: int = 6, length: int = 5, still: bool = False) -> Batch:
    films = [frames(row, length) for row in range(count)]
    films = [np.repeat(film[:1], length, axis=0) if still else film for film in films]
    return Batch.padded(torch.arange(count), [np.moveaxis(film, -1, 0) for film in films])


def seen(view, of: Batch, scope: str = "clip/") -> torch.Tensor:
    return view(of, Draws(0, 0, of.ids, scope), SPEC)


# What is done to a clip


def test_all_frames_of_a_clip_share_box_mirror_and_light():
    """Mutation: a box for every frame."""
    x = seen(ClipView(5, BUSY), batch(still=True))
    assert x.shape == (6, 3, 5, 8, 8)
    torch.testing.assert_close(x, x[:, :, :1].expand_as(x), rtol=0, atol=1e-5)
    assert not torch.allclose(x[0], x[1], atol=0.1)  # and clips do not


def test_every_frame_is_what_the_view_of_images_makes_of_it():
    look = ImageView(8, area=(0.3, 1.0), flip=0.5)
    of = batch()
    x = seen(ClipView(5, look), of)
    for number in range(5):
        still = Batch(of.ids, of.data[:, :, number], of.sizes[:, 1:])
        torch.testing.assert_close(x[:, :, number], look(still, Draws(0, 0, of.ids, "clip/"), SPEC), rtol=0, atol=1e-5)


def test_a_long_film_gives_a_stretch_from_a_random_start_and_a_short_one_begins_again():
    of = batch(6, 12)
    of.data[:] = of.data[:, :, :, :1, :1]  # the number of the frame everywhere
    numbers = (seen(ClipView(4, PLAIN), of)[:, 0, :, 0, 0] * 255).round().int()
    assert torch.equal(numbers, numbers[:, :1] + torch.arange(4))
    assert len(set(numbers[:, 0].tolist())) > 2
    short = Batch(of.ids, of.data[:, :, :3], of.sizes.clone().index_fill(1, torch.tensor([0]), 3))
    assert (seen(ClipView(5, PLAIN), short)[:, 0, :, 0, 0] * 255).round()[0].tolist() == [0, 1, 2, 0, 1]


def test_a_clip_is_the_same_in_any_batch_and_under_any_padding():
    of, view = batch(), ClipView(5, BUSY)
    alone = of.rows(2, 3)
    padded = Batch(alone.ids, torch.nn.functional.pad(alone.data, (0, 5, 0, 3, 0, 2)), alone.sizes)
    for other in (alone, padded):
        torch.testing.assert_close(seen(view, other), seen(view, of)[2:3], rtol=0, atol=1e-5)


def test_the_middle_of_a_film_is_shown_where_no_method_has_a_say():
    of = batch(3, 11)
    x = seen(MiddleView(5, CentreView(16, "none")), of)
    expected = of.data[:, :, 3:8, :, 4:20] / 255
    torch.testing.assert_close(x, expected, rtol=0, atol=1e-5)
    assert torch.equal(seen(MiddleView(5, CentreView(16, "none")), of, "other/"), x)


@pytest.mark.parametrize("look", [ImageView(8, area=(0.3, 1.0), erase=0.5), ImageView(8, (0.3, 1.0), blur=Blur(0.1, 2.0, 0.5))])
def test_what_would_mix_frames_is_refused(look):
    with pytest.raises(TacitError, match="neither blurred nor erased"):
        ClipView(4, look)


def test_sights_show_clips_of_the_extent_of_the_views():
    shown, of = sight("video"), batch(4, 12)
    for view in (shown.still((4, 8, 8)), shown.crops((4, 8, 8)), shown.light((4, 8, 8)), shown.tuning((4, 8, 8), 0.5)):
        assert seen(view, of).shape == (4, 3, 4, 8, 8)
    assert shown.flat(seen(shown.still((4, 8, 8)), of)).shape == (4, 3 * 4 * 8 * 8)
    (places,) = shown.window(SPEC, (4, 8, 8))((12, 16, 24), [])
    assert places.tolist() == list(range(2, 10))


# From the loader


VIEWS = {"one": ClipView(4, BUSY, Clip(4, 2)), "two": ClipView(4, BUSY, Stretch(4, 2))}


@pytest.mark.parametrize("side", [None, 12])
def test_views_are_the_same_from_a_store_and_from_files(tmp_path, side):
    collection = open_data(Films(), kind="video")
    kept = store.build(collection, side, tmp_path / "stores", 10**9)
    loaders = [Loader(collection, held, None, 5, 0, side=side, windows=windows(VIEWS)) for held in (kept, None)]
    for step in range(3):
        stored, direct = (loader.batch(step) for loader in loaders)
        assert torch.equal(stored.ids, direct.ids)
        for name, view in VIEWS.items():
            assert torch.equal(stored.of(name).data, direct.of(name).data)
            assert torch.equal(seen(view, stored.of(name), f"{name}/"), seen(view, direct.of(name), f"{name}/"))


def test_each_view_has_frames_of_its_own_and_new_ones_each_epoch():
    loader = Loader(
        open_data(Films(), kind="video"),
        None,
        None,
        10,
        0,
        windows=windows({name: ClipView(2, BUSY, Clip(2)) for name in "ab"}),
    )

    def starts(epoch: int, name: str) -> list[int]:
        found = loader.batch(epoch)
        order = found.ids.argsort()
        return found.of(name).data[order, 0, 0, 0, 0].tolist()

    assert starts(0, "a") != starts(0, "b")
    assert starts(0, "a") != starts(1, "a")
    assert starts(0, "a") == starts(0, "a")


def test_the_loader_decodes_the_frames_of_the_clips_and_no_others(monkeypatch):
    asked, read = [], video.read
    monkeypatch.setattr(video, "read", lambda content, wanted, *rest: asked.append(len(wanted)) or read(content, wanted, *rest))
    collection = open_data(Films(), kind="video")
    asked.clear()
    found = Loader(collection, None, None, 5, 0, windows=windows(VIEWS)).batch(0)
    assert asked == [4] * 10
    assert found.of("one").data.shape == (5, 3, 4, 16, 24)
