"""Whole views: what the cards' chains do, with numbers drawn as the cards say, whatever the batch and its padding."""

from __future__ import annotations

import math

import kornia
import pytest
import torch
import torch.nn.functional as F
from scipy import stats

from tacit.core import draws as draws_room
from tacit.core.draws import Draws
from tacit.core.errors import TacitError
from tacit.data.spec import Batch, Spec
from tacit.views import image as image_room
from tacit.views.image import Blur, CentreView, ImageView, Jitter
from tacit.views.normalise import statistics, to_unit

EVERYTHING = ImageView(
    size=24,
    area=(0.2, 1.0),
    flip_vertical=0.5,
    jitter=Jitter(0.8, 0.8, 0.8, 0.2),
    grey=0.2,
    blur=Blur(0.1, 2.0, 0.5),
    solarise=0.3,
    erase=0.3,
)
STILL = {"area": (1.0, 1.0), "aspect": (1.0, 1.0), "flip": 0.0, "normalise": "none"}


def spec(channels: int = 3, high: float = 255.0, low: float = 0.0) -> Spec:
    mean = tuple(0.4 + 0.05 * c for c in range(channels))
    return Spec("image", channels, (32, 32), low=low, high=high, mean=mean, std=tuple(m / 2 for m in mean))


def photographs(count: int = 6, channels: int = 3, height: int = 32, width: int = 32, dtype=torch.uint8) -> Batch:
    generator = torch.Generator().manual_seed(count * 1000 + height)
    small = torch.rand(count, channels, max(1, height // 4), max(1, width // 4), generator=generator)
    values = F.interpolate(small, (height, width), mode="bilinear", align_corners=False)
    top = {torch.uint8: 255, torch.uint16: 65535}.get(dtype, 1)
    data = (values * top).round().to(dtype) if top > 1 else values
    return Batch(torch.arange(count) + 100, data, torch.tensor([[height, width]] * count, dtype=torch.int32))


def draws(batch: Batch, epoch: int = 0) -> Draws:
    return Draws(0, epoch, batch.ids)


def unit(batch: Batch) -> torch.Tensor:
    return batch.data.to(torch.float32) / {torch.uint8: 255, torch.uint16: 65535}.get(batch.data.dtype, 1)


# What a view is


def test_a_view_that_changes_nothing_returns_the_image():
    batch = photographs()
    torch.testing.assert_close(ImageView(32, **STILL)(batch, draws(batch), spec()), unit(batch), rtol=0, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 6, 7])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float32])
def test_any_number_of_channels_and_depth(channels, dtype):
    batch = photographs(channels=channels, dtype=dtype)
    high = {torch.uint8: 255.0, torch.uint16: 65535.0, torch.float32: 1.0}[dtype]
    view = EVERYTHING(batch, draws(batch), spec(channels, high))
    assert view.shape == (6, channels, 24, 24)
    assert view.dtype == torch.float32
    assert view.is_contiguous()
    assert view.isfinite().all()


def test_16_bits_and_8_bits_of_one_picture_give_one_view():
    eight = photographs()
    sixteen = Batch(eight.ids, (eight.data.int() * 257).to(torch.uint16), eight.sizes)
    torch.testing.assert_close(
        EVERYTHING(eight, draws(eight), spec()), EVERYTHING(sixteen, draws(eight), spec(high=65535.0)), rtol=0, atol=1e-4
    )


def test_low_and_high_mean_zero_and_one():
    batch = photographs(dtype=torch.float32)
    far = Batch(batch.ids, batch.data * 300 - 1000, batch.sizes)
    torch.testing.assert_close(
        EVERYTHING(batch, draws(batch), spec(high=1.0)),
        EVERYTHING(far, draws(batch), spec(low=-1000.0, high=-700.0)),
        rtol=0,
        atol=2e-4,
    )


@pytest.mark.parametrize("size", [1, 2, 7, 33])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 40), (3, 2), (41, 29)])
def test_odd_and_tiny_sizes(size, height, width):
    batch = photographs(height=height, width=width)
    for view in (
        ImageView(size, (0.08, 1.0), rotate=30, jitter=Jitter(0.4, 0.4, 0.4, 0.1), blur=Blur(0.1, 2.0, 0.5), erase=0.5),
        CentreView(size),
    ):
        made = view(batch, draws(batch), spec())
        assert made.shape == (6, 3, size, size)
        assert made.isfinite().all()


def test_values_are_within_the_range_before_normalising():
    batch = photographs(count=64)
    for blur in (None, Blur(0.1, 2.0, 0.5)):
        view = ImageView(24, (0.08, 1.0), jitter=Jitter(0.8, 0.8, 0.8, 0.2), grey=0.2, blur=blur, normalise="none")
        made = view(batch, draws(batch), spec())
        assert made.min() >= 0
        assert made.max() <= 1


# What decides a view


def test_the_same_draws_give_the_same_view_bit_by_bit():
    batch = photographs()
    first = EVERYTHING(batch, draws(batch), spec())
    torch.manual_seed(99)
    assert torch.equal(EVERYTHING(batch, draws(batch), spec()), first)


def test_epoch_scope_and_seed_each_change_every_view():
    batch = photographs()
    first = EVERYTHING(batch, draws(batch), spec())
    for other in (draws(batch, epoch=1), draws(batch).within("second"), Draws(1, 0, batch.ids)):
        different = (EVERYTHING(batch, other, spec()) - first).abs().amax((1, 2, 3))
        assert (different > 0.01).all()


@pytest.mark.parametrize("rotate", [0.0, 20.0])
def test_a_sample_alone_is_seen_as_in_a_batch(rotate):
    """Up to the last bits: matrix libraries sum other shapes in another order."""
    batch = photographs(count=16)
    view = ImageView(**{**vars(EVERYTHING), "rotate": rotate, "solarise": 0.0, "normalise": "none"})
    together = view(batch, draws(batch), spec())
    for i in (0, 7, 15):
        alone = batch.rows(i, i + 1)
        torch.testing.assert_close(view(alone, draws(alone), spec())[0], together[i], rtol=0, atol=1e-6)


def test_the_order_of_the_batch_is_the_order_of_the_views():
    batch = photographs(count=8)
    turned = torch.arange(8).flip(0)
    shuffled = Batch(batch.ids[turned], batch.data[turned], batch.sizes[turned])
    view = ImageView(24, (0.2, 1.0), jitter=Jitter(0.4, 0.4, 0.4, 0.1), normalise="none")
    torch.testing.assert_close(
        view(shuffled, draws(shuffled), spec()), view(batch, draws(batch), spec())[turned], rtol=0, atol=1e-6
    )


@pytest.mark.parametrize(
    ("view", "tolerance"),
    [
        (ImageView(24, (0.2, 1.0), jitter=Jitter(0.8, 0.8, 0.8, 0.2), normalise="none"), 1e-6),
        (ImageView(24, (0.2, 1.0), rotate=15, normalise="none"), 1e-5),
        (CentreView(24, normalise="none"), 1e-6),
    ],
    ids=["cut", "turned", "central"],
)
@pytest.mark.parametrize("content", [0, 255])
def test_padding_does_not_change_a_view(view, tolerance, content):
    small, large = photographs(count=1, height=20, width=17), photographs(count=2, height=40, width=50)
    data = torch.full((3, 3, 40, 50), content, dtype=torch.uint8)
    data[0, :, :20, :17] = small.data[0]
    data[1:] = large.data
    ragged = Batch(torch.tensor([100, 200, 201]), data, torch.cat([small.sizes, large.sizes]))
    alone = view(small, draws(small), spec())
    torch.testing.assert_close(view(ragged, draws(ragged), spec())[:1], alone, rtol=0, atol=tolerance)


def test_a_part_that_is_switched_off_draws_nothing_and_moves_no_other_draw():
    batch = photographs()
    plain = ImageView(24, (0.2, 1.0), normalise="none")
    never = ImageView(
        24, (0.2, 1.0), jitter=Jitter(0.8, 0.8, 0.8, 0.2, probability=0.0), blur=Blur(1.0, 2.0, 0.0), normalise="none"
    )
    torch.testing.assert_close(plain(batch, draws(batch), spec()), never(batch, draws(batch), spec()), rtol=0, atol=1e-6)


def test_nothing_is_read_back_from_the_device_and_nothing_leaves_it():
    """Meta tensors have no content: whoever looks at a value, or mixes devices, fails."""
    batch = photographs().to("meta")
    for rotate in (0.0, 10.0):
        made = ImageView(**{**vars(EVERYTHING), "rotate": rotate})(batch, draws(batch), spec())
        assert (made.device.type, made.shape) == ("meta", (6, 3, 24, 24))
    assert CentreView(24)(batch, draws(batch), spec()).device.type == "meta"


# One step at a time, against kornia


def test_solarise_and_erase_and_flips_that_always_happen():
    batch = photographs()
    made = ImageView(32, **{**STILL, "flip": 1.0}, flip_vertical=1.0, solarise=1.0)(batch, draws(batch), spec())
    torch.testing.assert_close(made, kornia.enhance.solarize(unit(batch), 0.5).flip(2, 3), rtol=0, atol=1e-5)
    wiped = ImageView(32, **STILL, erase=1.0)(batch, draws(batch), spec()) == 0
    share = wiped.all(1).float().mean((1, 2))
    assert (share > 0.01).all()
    assert (share < 0.36).all()


def test_blur_is_kornias_with_a_black_border_and_simclrs_kernel():
    batch = photographs(height=64, width=64)
    made = ImageView(64, **STILL, blur=Blur(1.5, 1.5, 1.0))(batch, draws(batch), spec())
    theirs = kornia.filters.gaussian_blur2d(unit(batch), (7, 7), (1.5, 1.5), border_type="constant")
    torch.testing.assert_close(made, theirs, rtol=0, atol=1e-5)


def test_data_is_normalised_by_its_own_numbers_and_imagenet_by_the_cards():
    batch = photographs()
    plain = ImageView(32, (0.2, 1.0), normalise="none")(batch, draws(batch), spec())
    mean, std = (torch.tensor(each)[:, None, None] for each in (spec().mean, spec().std))
    made = ImageView(32, (0.2, 1.0))(batch, draws(batch), spec())
    torch.testing.assert_close(made, (plain - mean) / std, rtol=0, atol=1e-5)
    made = ImageView(32, (0.2, 1.0), normalise="imagenet")(batch, draws(batch), spec())
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
    torch.testing.assert_close(made, (plain - mean) / std, rtol=0, atol=1e-5)
    torch.testing.assert_close(to_unit(made, "imagenet", spec()), plain, rtol=0, atol=1e-6)


def test_a_channel_without_any_spread_is_not_blown_up():
    flat = Spec("image", 2, (8, 8), mean=(0.5, 0.5), std=(0.25, 0.0))
    assert statistics("data", flat)[1].min() > 0
    batch = photographs(channels=2)
    assert CentreView(16)(batch, draws(batch), flat).isfinite().all()


def test_imagenets_numbers_are_refused_for_other_than_three_channels():
    batch = photographs(channels=1)
    with pytest.raises(TacitError, match="3 channels"):
        CentreView(16, normalise="imagenet")(batch, draws(batch), spec(1))


# Evaluation


def test_the_central_view_is_the_central_square_at_another_size():
    batch = photographs(height=40, width=60)
    made = CentreView(20, normalise="none")(batch, draws(batch), spec())
    expected = F.interpolate(unit(batch)[..., 10:50], (20, 20), mode="bicubic", antialias=True).clamp(0, 1)
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-5)


def test_the_central_view_draws_nothing():
    batch = photographs()
    assert torch.equal(CentreView(16)(batch, draws(batch), spec()), CentreView(16)(batch, draws(batch, epoch=5), spec()))


def test_a_picture_of_the_right_size_is_seen_as_it_is():
    batch = photographs(height=32, width=35)
    seen = CentreView(32, normalise="none")(batch, draws(batch), spec())
    torch.testing.assert_close(seen, unit(batch)[..., 1:33], rtol=0, atol=1e-6)


# The cards' distributions, as the view really hands them on


class Recorder:
    """Notes what a function was called with, and calls it."""

    def __init__(self, monkeypatch, owner, name):
        self.function, self.calls = getattr(owner, name), []
        monkeypatch.setattr(owner, name, self)

    def __call__(self, *args, **kwargs):
        self.calls.append((args, kwargs))
        return self.function(*args, **kwargs)


def many(count: int = 10_000) -> Batch:
    return Batch(torch.arange(count), torch.full((count, 3, 2, 2), 128, dtype=torch.uint8), torch.full((count, 2), 2))


def uniform_between(values: torch.Tensor, low: float, high: float) -> bool:
    return stats.kstest(values.numpy(), stats.uniform(low, high - low).cdf).pvalue > 1e-5


def share_is(chosen: torch.Tensor, probability: float) -> bool:
    return abs(float(chosen.float().mean()) - probability) < 5 * math.sqrt(probability * (1 - probability) / len(chosen))


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_jitter_is_drawn_as_simclr_draws_it(monkeypatch, strength):
    record = Recorder(monkeypatch, image_room.colour, "jitter")
    batch = many()
    amplitudes = [0.8 * strength, 0.8 * strength, 0.8 * strength, 0.2 * strength]
    ImageView(2, (1.0, 1.0), jitter=Jitter(*amplitudes))(batch, draws(batch), spec())
    drawn = record.calls[0][1]
    factors = torch.stack([drawn[name] for name in ("brightness", "contrast", "saturation", "hue")])
    neutral = torch.tensor([1.0, 1.0, 1.0, 0.0])[:, None]
    changed = (factors != neutral).any(0)
    assert share_is(changed, 0.8)
    for values, middle, amplitude in zip(factors[:, changed], neutral[:, 0].tolist(), amplitudes, strict=True):
        assert uniform_between(values, middle - amplitude, middle + amplitude)
    assert torch.corrcoef(factors[:, changed]).fill_diagonal_(0).abs().max() < 0.06
    code = (drawn["order"] * torch.tensor([64, 16, 4, 1])).sum(1)
    counts = code.unique(return_counts=True)[1]
    assert len(counts) == 24
    assert stats.chisquare(counts.numpy()).pvalue > 1e-5


def test_an_amplitude_above_one_never_turns_a_factor_negative(monkeypatch):
    record = Recorder(monkeypatch, image_room.colour, "jitter")
    batch = many(2000)
    ImageView(2, (1.0, 1.0), jitter=Jitter(1.5, 0, 0, 0, probability=1.0))(batch, draws(batch), spec())
    assert uniform_between(record.calls[0][1]["brightness"], 0.0, 2.5)


def test_flips_grey_blur_solarise_and_erasing_fall_as_often_as_they_should(monkeypatch):
    cut, grey, wipe = (
        Recorder(monkeypatch, owner, name)
        for owner, name in ((image_room, "resample"), (image_room.colour, "grey"), (image_room, "erase"))
    )
    blur, solarise = Recorder(monkeypatch, image_room, "gaussian_blur"), Recorder(monkeypatch, image_room.colour, "solarise")
    batch = many()
    view = ImageView(
        2, (1.0, 1.0), flip_vertical=0.3, grey=0.2, blur=Blur(0.1, 2.0, 0.5), solarise=0.2, erase=0.25, rotate=20.0
    )
    view(batch, draws(batch), spec())
    moved = cut.calls[0][1]
    assert share_is(moved["flip_x"], 0.5)
    assert share_is(moved["flip_y"], 0.3)
    assert uniform_between(moved["rotation"], -math.radians(20), math.radians(20))
    coin = grey.calls[0][0][1]
    assert share_is(coin, 0.2)
    for record, probability in ((blur, 0.5), (solarise, 0.2), (wipe, 0.25)):
        touched = torch.arange(len(batch)) < len(record.calls[0][0][0])
        assert share_is(touched, probability)
    assert uniform_between(blur.calls[0][0][2], 0.1, 2.0)
    for one, other in ((moved["flip_x"], moved["flip_y"]), (moved["flip_x"], coin), (moved["flip_y"], coin)):
        assert abs(float(torch.corrcoef(torch.stack([one.float(), other.float()]))[0, 1])) < 0.06


def test_every_number_is_drawn_under_a_name_of_its_own(monkeypatch):
    names = []
    words = Draws.words
    monkeypatch.setattr(Draws, "words", lambda d, name, count: names.append(d.scope + name) or words(d, name, count))
    batch = photographs()
    ImageView(**{**vars(EVERYTHING), "rotate": 10.0})(batch, draws(batch), spec())
    assert len(set(names)) == len(names) > 15


PARTS = [
    ImageView(16, (0.2, 1.0), flip=0.0),
    ImageView(16, (0.2, 1.0), jitter=Jitter(0.8, 0.8, 0.8, 0.2, brighten="add"), solarise=0.5),
    ImageView(16, (0.2, 1.0), flip_vertical=0.5, rotate=10.0, erase=0.5),
    ImageView(**{**vars(EVERYTHING), "rotate": 10.0}),
]


@pytest.mark.parametrize("view", PARTS, ids=["crop", "light", "moved", "everything"])
def test_a_view_makes_just_the_numbers_that_it_asks_for_and_all_at_once(monkeypatch, view):
    make, asked = Recorder(monkeypatch, draws_room, "philox"), {}
    words = Draws.words
    monkeypatch.setattr(Draws, "words", lambda d, name, count: asked.update({d.scope + name: count}) or words(d, name, count))
    batch = photographs()
    view(batch, draws(batch).within("first"), spec())
    assert [args[0].shape for args, _ in make.calls] == [(4, len(batch), sum(-(-count // 4) for count in asked.values()))]


@pytest.mark.parametrize("view", PARTS, ids=["crop", "light", "moved", "everything"])
def test_numbers_made_at_once_are_those_of_each_name_alone(monkeypatch, view):
    batch = photographs()
    together = view(batch, draws(batch).within("first"), spec())
    monkeypatch.setattr(Draws, "ahead", lambda d, counts: d)
    assert torch.equal(view(batch, draws(batch).within("first"), spec()), together)


# The cards' recipes can be said


def moco_v3(size: int, smallest: float) -> tuple[ImageView, ImageView]:
    jitter = Jitter(0.4, 0.4, 0.2, 0.1)
    return (
        ImageView(size, (smallest, 1.0), jitter=jitter, grey=0.2, blur=Blur(0.1, 2.0, 1.0), normalise="imagenet"),
        ImageView(size, (smallest, 1.0), jitter=jitter, grey=0.2, blur=Blur(0.1, 2.0, 0.1), solarise=0.2, normalise="imagenet"),
    )


def dino(size: int, local_size: int, local: int) -> dict[str, ImageView]:
    def view(side: int, area: tuple[float, float], blur: float, solarise: float = 0.0) -> ImageView:
        jitter = Jitter(0.4, 0.4, 0.4, 0.1)
        return ImageView(
            side, area, jitter=jitter, grey=0.2, blur=Blur(0.1, 2.0, blur), solarise=solarise, normalise="imagenet"
        )

    views = {"global1": view(size, (0.4, 1.0), 1.0), "global2": view(size, (0.4, 1.0), 0.1, solarise=0.2)}
    return views | {f"local{i + 1}": view(local_size, (0.05, 0.4), 0.5) for i in range(local)}


def test_the_views_of_moco_v3_and_dino_differ_from_one_another_and_fit_their_sizes():
    batch = photographs(height=48, width=40)
    first, second = (v(batch, draws(batch).within(n), spec()) for n, v in zip("12", moco_v3(32, 0.08), strict=True))
    assert first.shape == second.shape == (6, 3, 32, 32)
    assert (first - second).abs().amax((1, 2, 3)).min() > 0.1
    views = {name: view(batch, draws(batch).within(name), spec()) for name, view in dino(32, 16, 3).items()}
    assert [tuple(v.shape[2:]) for v in views.values()] == [(32, 32)] * 2 + [(16, 16)] * 3
    assert (views["local1"] - views["local2"]).abs().max() > 0.1


# Refusals


@pytest.mark.parametrize(
    "make",
    [
        lambda: ImageView(32, (0.0, 1.0)),
        lambda: ImageView(32, (0.5, 0.2)),
        lambda: ImageView(32, (0.5, 1.2)),
        lambda: ImageView(32, (0.5, 1.0), aspect=(0.0, 1.0)),
        lambda: Blur(0.0, 1.0, 0.5),
        lambda: Blur(2.0, 1.0, 0.5),
    ],
)
def test_impossible_numbers_are_refused_in_one_line(make):
    with pytest.raises(TacitError) as refusal:
        make()
    assert "\n" not in str(refusal.value)
    assert "give" in str(refusal.value)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_sample_of_the_view_s_own_size_is_seen_as_if_it_were_resampled(dtype):
    batch = photographs(height=32, width=32, dtype=dtype)
    padded = Batch(batch.ids, F.pad(batch.data, (0, 3, 0, 5)), batch.sizes)
    before = batch.data.clone()
    assert torch.equal(CentreView(32)(batch, draws(batch), spec()), CentreView(32)(padded, draws(batch), spec()))
    assert torch.equal(batch.data, before)
