"""Views of volumes: what they show, whatever they are batched with, and pairs of crops of the same place."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tacit.core.draws import Draws
from tacit.core.errors import TacitError
from tacit.data.spec import Batch, Spec
from tacit.views.sight import sight
from tacit.views.volume import CentreVolume, Light, VolumeView, largest_box, resized
from tacit.views.volume_pairs import PARTNER, PairView, partner_of

SPEC = Spec("volume", 1, (12, 14, 10), mean=(0.3,), std=(0.2,))
EXTENT = (8, 8, 8)


def volumes(*sizes: tuple[int, int, int], low: int = 0) -> Batch:
    random = np.random.default_rng(sum(map(sum, sizes)))
    return Batch.padded(torch.arange(len(sizes)), [random.integers(low, 256, (1, *size)).astype(np.uint8) for size in sizes])


def draws(batch: Batch, scope: str = "") -> Draws:
    return Draws(0, 0, batch.ids, scope)


def alone(batch: Batch, row: int) -> Batch:
    """A sample without its neighbours and their padding."""
    d, h, w = batch.sizes[row].tolist()
    return Batch(batch.ids[row : row + 1], batch.data[row : row + 1, :, :d, :h, :w], batch.sizes[row : row + 1])


VIEWS = [
    CentreVolume(EXTENT),
    VolumeView(EXTENT, zoom=(0.5, 1.0), flip=(0.5, 0.5, 0.5), light=Light(0.3, 0.2, 0.4)),
    VolumeView(EXTENT, zoom=None, flip=(0.5, 0.5, 0.5)),
    *(getattr(sight("volume"), name)(EXTENT) for name in ("still", "crops", "light")),
    PairView("query", EXTENT),
    PairView("query", EXTENT, augment=True),
]


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: type(view).__name__)
def test_a_view_is_the_same_in_any_batch_and_under_any_padding(view):
    batch = volumes((12, 14, 10), (9, 8, 20), (6, 9, 8))
    together = view(batch, draws(batch), SPEC)
    assert together.shape == (3, 1, *EXTENT)
    assert together.dtype == torch.float32
    for row in range(3):
        one = alone(batch, row)
        torch.testing.assert_close(view(one, draws(one), SPEC), together[row : row + 1], rtol=0, atol=2e-5)


def test_resizing_is_the_antialiased_linear_one():
    x = torch.rand(2, 3, 12, 10, 8)
    sizes = torch.tensor([x.shape[2:]] * 2, dtype=torch.int32)
    made = resized(x, sizes, torch.tensor([[1.0, 2, 0]] * 2), torch.tensor([[8.0, 8, 8]] * 2), (4, 8, 16))
    box = x[:, :, 1:9, 2:10]
    plane = F.interpolate(box.flatten(1, 2), (8, 16), mode="bilinear", antialias=True).unflatten(1, (3, 8))
    column = plane.flatten(3).transpose(1, 2).reshape(2, 8, -1)  # depth is left
    depth = F.interpolate(column[:, None], (4, column.shape[2]), mode="bilinear", antialias=True)[:, 0]
    wanted = depth.reshape(2, 4, 3, 8, 16).transpose(1, 2)
    torch.testing.assert_close(made, wanted, rtol=0, atol=1e-5)
    flipped = resized(x, sizes, torch.zeros(2, 3), sizes.float(), (6, 5, 4), torch.tensor([[True, False, True]] * 2))
    plain = resized(x, sizes, torch.zeros(2, 3), sizes.float(), (6, 5, 4))
    torch.testing.assert_close(flipped, plain.flip(2, 4))


def test_the_largest_box_has_the_proportions_of_the_view():
    sizes = torch.tensor([[12, 14, 10], [6, 30, 30]])
    assert largest_box(sizes, (8, 8, 8)).tolist() == [[10, 10, 10], [6, 6, 6]]
    assert largest_box(sizes, (4, 8, 8)).tolist() == [[5, 10, 10], [6, 12, 12]]


def test_boxes_as_they_are_want_nothing_else_of_a_sample_and_have_darkness_around_what_is_small():
    view = VolumeView(EXTENT, zoom=None, normalise="none")
    assert [len(at) for at in view.window((20, 8, 5), (0.5, 0.5, 0.5))] == [8, 8, 5]
    batch = volumes((8, 8, 5), low=1)
    x = view(batch, draws(batch), SPEC)
    assert torch.equal(x[0, :, :, :, 2:7], batch.data[0].float() / 255)
    assert (x[..., :2] == 0).all()
    assert (x[..., 7:] == 0).all()
    assert VolumeView(EXTENT).window is None
    with pytest.raises(TacitError, match="zoom of a view"):
        VolumeView(EXTENT, zoom=(0.0, 1.0))


def test_light_keeps_to_its_range_and_does_nothing_without_amplitudes():
    batch = volumes((8, 8, 8), (8, 8, 8))
    x = torch.rand(2, 1, 8, 8, 8)
    assert torch.equal(Light()(x, draws(batch)), x)
    for name in ("scale", "shift", "gamma"):
        made = Light(**{name: 0.5})(x, draws(batch))
        assert 0 <= made.min() <= made.max() <= 1
        assert not torch.equal(made, x)


def test_raw_input_is_compared_coarsely():
    assert sight("volume").flat(torch.ones(2, 1, 20, 16, 9)).shape == (2, 16 * 16 * 9)


def body(shape: tuple[int, int, int], where: tuple[slice, slice, slice], size: int = 20) -> np.ndarray:
    """A ramp within a box, dark outside."""
    made = np.zeros((1, size, size, size), dtype=np.uint8)
    ramp = np.indices(shape).sum(axis=0) + 1
    made[(0, *where)] = ramp
    return made


def test_partners_show_the_same_place_of_the_body():
    here, there = (slice(2, 12), slice(5, 15), slice(0, 10)), (slice(8, 18), slice(1, 11), slice(10, 20))
    one, other = body((10, 10, 10), here), body((10, 10, 10), there)
    batch = Batch.padded(torch.arange(2), [one, one])
    batch.parts[PARTNER] = Batch.padded(torch.arange(2, 4), [other, other])
    query, anchor = (PairView(which, EXTENT)(batch, draws(batch, which), SPEC) for which in ("query", "anchor"))
    assert torch.equal(query, anchor)
    assert query.amax() > 0
    elsewhere = PairView("anchor", EXTENT, "random")(batch, draws(batch, "anchor"), SPEC)
    assert not torch.equal(query, elsewhere)
    itself = PairView("anchor", EXTENT, "self")(batch, draws(batch, "anchor"), SPEC)
    assert torch.equal(query, itself)


def test_padding_is_no_body_where_zero_is_not_dark():
    """Of values from -100 on, the zeros of the padding would be bright."""
    spec = Spec("volume", 1, (6, 6, 6), low=-100.0, high=100.0)
    small, large = np.full((1, 6, 6, 6), 50, dtype=np.float32), np.full((1, 20, 20, 20), 50, dtype=np.float32)
    view = PairView("anchor", EXTENT)
    batch = Batch.padded(torch.arange(2), [small, large])
    batch.parts[PARTNER] = Batch.padded(torch.tensor([1, 0]), [large, small])
    x = view(batch, draws(batch), spec)
    for row, (own, other) in enumerate(((small, large), (large, small))):
        one = Batch.padded(batch.ids[row : row + 1], [own])
        one.parts[PARTNER] = Batch.padded(batch.ids[row : row + 1], [other])
        assert torch.equal(view(one, draws(one), spec)[0], x[row])
    del batch.parts[PARTNER]
    assert torch.equal(view(batch, draws(batch), spec), x)


def test_in_a_batch_everybody_is_somebodys_partner_whatever_the_order():
    batch = volumes(*[(4, 4, 4 + row) for row in range(6)])
    partners = partner_of(batch, draws(batch)).ids
    assert sorted(partners.tolist()) == list(range(6))
    assert (partners != batch.ids).all()
    order = torch.tensor([3, 1, 5, 0, 4, 2])
    turned = batch.each(lambda tensor: tensor[order])
    assert torch.equal(partner_of(turned, draws(turned)).ids, partners[order])


def test_augmented_crops_are_turned_about_the_vertical_and_noisy():
    batch = volumes((12, 12, 12))
    view = PairView("query", EXTENT, augment=True)
    x = torch.zeros(1, 1, *EXTENT)
    x[:, :, :, 4, 4] = 1.0  # an upright line near the axis
    made = view.changed(x, draws(batch))
    noise = made - x
    assert 0.05 < noise[..., 0].std() < 0.15
    assert (made.round()[0, 0].flatten(1).argmax(dim=1) == made.round()[0, 0, 0].argmax()).all()
