"""Views of pictures of channels: one box for all of them, a light of its own for each, and presence beside the values."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tacit.core.draws import Draws
from tacit.core.errors import TacitError
from tacit.data.spec import Batch, Spec
from tacit.views.channel_image import ChannelCentreView, ChannelView
from tacit.views.image import Blur, ImageView, Jitter
from tacit.views.sights import channels as sight

SPEC = Spec("channels", 1, (5, 12, 12))
PLAIN = ImageView(8, area=(0.5, 1.0), normalise="none")
COUNTS = (2, 5, 3)


def pictures(counts: tuple[int, ...] = COUNTS, first: int = 0, sides: tuple[int, ...] = ()) -> Batch:
    """Noise, with other numbers of channels (and sides) from sample to sample; each is the same in any batch."""
    samples = []
    for number, count in enumerate(counts, first):
        side = sides[number - first] if sides else 12
        noise = Draws(3, 0, torch.tensor([number])).integers("noise", 20, 200, 1, 5, 12, 12)[0, :, :count, :side, :side]
        samples.append(noise.to(torch.uint8).numpy())
    return Batch.padded(torch.arange(first, first + len(counts)), samples)


def seen(view, batch: Batch, epoch: int = 0, name: str = "a", spec: Spec = SPEC) -> torch.Tensor:
    return view(batch, Draws(0, epoch, batch.ids).within(name), spec)


RICH = ChannelView(replace(PLAIN, blur=Blur(0.1, 2.0, 1.0), solarise=0.5), 0.3, 0.5, turns=True)


@pytest.mark.parametrize("view", [ChannelView(PLAIN), RICH, replace(RICH, discard=True), ChannelCentreView(8)])
def test_a_view_is_values_and_presence(view):
    x = seen(view, pictures())
    assert x.shape == (3, 2, 5, 8, 8)
    assert x.dtype == torch.float32
    values, there = x.unbind(1)
    assert values.min() >= 0
    assert values.max() <= 1
    assert set(there.unique().tolist()) <= {0.0, 1.0}
    assert (values[there == 0] == 0).all()
    if not getattr(view, "discard", False):
        assert there[:, :, 0, 0].sum(1).tolist() == list(COUNTS)


@pytest.mark.parametrize("view", [ChannelView(PLAIN), RICH, replace(RICH, discard=True, shuffle=True), ChannelCentreView(8)])
def test_a_sample_looks_the_same_in_any_batch(view):
    together = seen(view, pictures(sides=(12, 10, 12)))
    for row, count in enumerate(COUNTS):
        alone = seen(view, pictures((count,), first=row, sides=(10,) if row == 1 else (12,)))
        torch.testing.assert_close(alone[0], together[row, :, :count], atol=2e-6, rtol=0)


def test_every_channel_has_all_of_the_range_whatever_its_exposure():
    batch = pictures()
    darker = Batch(batch.ids, batch.data.clone(), batch.sizes)
    darker.data[:, 0, 1] = darker.data[:, 0, 1] // 2 + 7
    still = ChannelCentreView(12)
    values = seen(still, darker)[:, 0]
    for row, count in enumerate(COUNTS):
        assert values[row, :count].flatten(1).amin(1).tolist() == [0.0] * count
        assert values[row, :count].flatten(1).amax(1).tolist() == [1.0] * count
    torch.testing.assert_close(values, seen(still, batch)[:, 0], atol=0.02, rtol=0)


def test_the_scale_is_that_of_the_whole_channel_and_not_of_the_crop():
    batch = pictures()
    batch.data[..., 0, 0] = 255
    batch.data[..., 11, 11] = 0
    inner = seen(ChannelCentreView(12), batch)[:, 0, :2, 2:10, 2:10]
    torch.testing.assert_close(inner, batch.data[:, 0, :2, 2:10, 2:10].float() / 255)


@pytest.mark.parametrize("view", [ChannelView(PLAIN), replace(RICH, discard=True, shuffle=True), ChannelCentreView(8)])
def test_a_channel_that_is_missing_between_others_is_not_present(view):
    batch = pictures((5, 5))
    batch.data[1, 0, 2] = 0
    values, there = seen(view, batch).unbind(1)
    shown = there[:, :, 0, 0].sum(1).tolist()
    assert shown[1] in ((3.0, 4.0) if getattr(view, "discard", False) else (4.0,))
    if not getattr(view, "shuffle", False):
        assert there[:, :, 0, 0].tolist() == [[1, 1, 1, 1, 1], [1, 1, 0, 1, 1]]
        assert values[1, 3:].any()


def test_a_discarded_channel_moves_the_later_ones_up_and_a_missing_one_keeps_its_place():
    view = ChannelView(replace(PLAIN, area=(1.0, 1.0), aspect=(1.0, 1.0), flip=0.0, size=12), discard=True)
    batch = pictures(tuple([4] * 40))
    batch.data[:, 0, 1] = 0
    found = {tuple(there.tolist()) for there in seen(view, batch)[:, 1, :4, 0, 0]}
    assert found == {(1, 0, 1, 1), (0, 1, 1, 0), (1, 0, 1, 0)}  # none, the first, one of the others


def test_a_picture_of_nothing_but_zeros_keeps_its_channels():
    batch = pictures((2, 3))
    batch.data[0] = 0
    batch.data[1, 0, :2] = 0
    batch.data[1, 0, 2] = 7  # constant, and there
    assert seen(ChannelCentreView(8), batch)[:, 1, :, 0, 0].tolist() == [[1, 1, 0], [0, 0, 1]]


def test_padding_of_smaller_pictures_does_not_count_as_black():
    batch = pictures(sides=(8, 12, 12))
    values = seen(ChannelCentreView(8), batch)[0, 0, :2]
    assert values.flatten(1).amin(1).tolist() == [0.0, 0.0]  # the least value is 20 or so, not the padding's 0
    own = batch.data[0, 0, :2, :8, :8].float().flatten(1)
    expected = (own - own.amin(1, keepdim=True)) / (own.amax(1) - own.amin(1))[:, None]
    torch.testing.assert_close(values.flatten(1), expected)


def test_what_hardly_varies_is_not_blown_up():
    spec = replace(SPEC, low=0.0, high=2550.0)
    data = torch.full((1, 1, 2, 12, 12), 100.0)
    data[0, 0, 1, 0, 0] = 104.0  # less than a 255th of the range
    values = seen(ChannelCentreView(12), Batch(torch.arange(1), data, torch.tensor([[2, 12, 12]])), spec=spec)[0, 0]
    assert (values[0] == 0).all()
    assert values[1].max() == pytest.approx(0.4)


def test_channels_share_one_box_and_have_their_own_light():
    """Equal channels stay equal through what moves pixels, and differ once each has its own shift and gain."""
    batch = pictures((3,))
    batch.data[:, :, :] = batch.data[:, :, :1]
    moved = seen(ChannelView(PLAIN, turns=True), batch)[0, 0]
    assert torch.equal(moved[0], moved[1])
    lit = seen(ChannelView(PLAIN, 0.3, 0.5), batch)[0, 0]
    assert (lit[0] - lit[1]).abs().max() > 0.02
    assert (lit[1] - lit[2]).abs().max() > 0.02


def test_jitter_is_no_stronger_than_was_asked_for():
    view = ChannelView(replace(PLAIN, area=(1.0, 1.0), aspect=(1.0, 1.0), flip=0.0, size=12), 0.1, 0.0)
    batch = pictures(tuple([3] * 40))
    shift = (seen(view, batch) - seen(ChannelCentreView(12), batch))[:, 0, :3].flatten(2).median(dim=2).values
    assert 0.08 < shift.abs().max() <= 0.1 + 1e-6
    assert shift.std(dim=1).mean() > 0.02


def test_turns_lay_a_picture_down_in_all_eight_ways():
    whole = replace(PLAIN, area=(1.0, 1.0), aspect=(1.0, 1.0), size=12, flip_vertical=0.5)
    batch = pictures((1,))
    upright = seen(ChannelCentreView(12), batch)[0, 0, 0]
    ways = {
        tuple(torch.rot90(side, turn).flatten().round(decimals=3).tolist())
        for side in (upright, upright.T)
        for turn in range(4)
    }
    found = set()
    for epoch in range(80):
        x = seen(ChannelView(whole, turns=True), batch, epoch)[0, 0, 0]
        found.add(tuple(x.flatten().round(decimals=3).tolist()))
    assert found == ways


def test_a_discarded_channel_is_missing_in_all_views_of_an_epoch():
    view = ChannelView(replace(PLAIN, area=(1.0, 1.0), aspect=(1.0, 1.0), flip=0.0, size=12), discard=True)
    batch = pictures(tuple([3] * 60))
    first, second, later = seen(view, batch), seen(view, batch, name="b"), seen(view, batch, epoch=1)
    assert torch.equal(first, second)
    assert not torch.equal(first, later)
    left = first[:, 1, :, 0, 0].sum(1)
    assert set(left.tolist()) == {2.0, 3.0}
    assert (left == 2).float().mean() == pytest.approx(2 / 3, abs=0.2)
    assert (seen(view, pictures(tuple([1] * 20)))[:, 1] == 1).all()


def test_shuffled_channels_are_the_same_ones_in_another_order():
    view = ChannelView(replace(PLAIN, area=(1.0, 1.0), aspect=(1.0, 1.0), flip=0.0, size=12), shuffle=True)
    batch = pictures(tuple([4] * 8))
    x, other, still = seen(view, batch)[:, 0], seen(view, batch, name="b")[:, 0], seen(ChannelCentreView(12), batch)[:, 0]
    assert not torch.equal(x, other)
    torch.testing.assert_close(x.sum(1), still.sum(1))
    order = (x[:, :, None] - still[:, None]).abs().amax((3, 4)).argmin(2)
    assert order.sort(1).values.tolist() == [[0, 1, 2, 3]] * 8


def test_what_means_colour_is_refused():
    for look in (replace(PLAIN, jitter=Jitter(0.4, 0.4, 0.0, 0.0)), replace(PLAIN, grey=0.2), replace(PLAIN, normalise="data")):
        with pytest.raises(TacitError, match="no colours"):
            ChannelView(look)


def test_raw_input_has_one_length_whatever_the_channels():
    few, many = (sight.flat(seen(sight.still(sight.coarse), pictures(counts))) for counts in ((2, 2), COUNTS))
    assert few.shape == (2, 16**3)
    assert many.shape == (3, 16**3)
    assert torch.equal(few[0], many[0])
    wide = torch.rand(1, 2, 20, 40, 40)
    assert sight.flat(wide).shape == (1, 16**3)


def test_sights_are_made_for_the_extent():
    batch, extent = pictures(), (5, 8, 8)
    for view in (sight.still(extent), sight.crops(extent), sight.light(extent), sight.tuning(extent, 0.5)):
        assert seen(view, batch).shape == (3, 2, 5, 8, 8)
    assert sight.window(SPEC, extent) is None
