"""Moving pixels: the same parameters give the same image as the steps of Pillow, PyTorch and kornia one after another."""

from __future__ import annotations

import math

import kornia
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tacit.views.geometry import resample


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def smooth(*shape: int, seed: int = 0) -> torch.Tensor:
    """Pictures without detail at the scale of a pixel, where interpolators agree."""
    small = noise(*shape[:2], max(2, shape[2] // 8), max(2, shape[3] // 8), seed=seed)
    return F.interpolate(small, shape[2:], mode="bicubic", align_corners=False)


def whole(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sizes and boxes of a batch without padding, cropped nowhere."""
    batch, _, height, width = image.shape
    return torch.tensor([[height, width]] * batch), torch.tensor([[0.0, 0.0, height, width]] * batch)


@given(
    height=st.integers(1, 50),
    width=st.integers(1, 50),
    out=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    corner=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    side=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    interpolation=st.sampled_from(["bicubic", "bilinear"]),
)
@settings(max_examples=150, deadline=None)
def test_crop_and_resize_is_cropping_and_then_the_resize_of_pillow(height, width, out, corner, side, interpolation):
    image = noise(2, 3, height, width)
    tall, wide = 1 + int(side[0] * (height - 1)), 1 + int(side[1] * (width - 1))
    top, left = int(corner[0] * (height - tall)), int(corner[1] * (width - wide))
    boxes = torch.tensor([[top, left, tall, wide]] * 2, dtype=torch.float32)
    ours = resample(image, whole(image)[0], boxes, out, interpolation=interpolation)
    cropped = image[:, :, top : top + tall, left : left + wide].flatten(0, 1).numpy()
    filters = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
    theirs = [np.asarray(Image.fromarray(channel).resize(out[::-1], filters[interpolation])) for channel in cropped]
    torch.testing.assert_close(ours.flatten(0, 1), torch.from_numpy(np.stack(theirs)), rtol=0, atol=2e-5)


def test_every_sample_has_its_own_box_and_flips():
    image = noise(4, 3, 30, 40)
    boxes = torch.tensor([[0.0, 0, 30, 40], [3, 5, 10, 20], [29, 39, 1, 1], [7, 0, 23, 13]])
    flip_x, flip_y = torch.tensor([False, True, True, True]), torch.tensor([True, False, True, True])
    ours = resample(image, whole(image)[0], boxes, (17, 19), flip_x, flip_y)
    for i, (top, left, tall, wide) in enumerate(boxes.int().tolist()):
        expected = F.interpolate(
            image[i : i + 1, :, top : top + tall, left : left + wide], (17, 19), mode="bicubic", antialias=True
        )
        expected = kornia.geometry.transform.hflip(expected) if flip_x[i] else expected
        expected = kornia.geometry.transform.vflip(expected) if flip_y[i] else expected
        torch.testing.assert_close(ours[i : i + 1], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float32, torch.float64])
@pytest.mark.parametrize("channels", [1, 2, 3, 7])
def test_the_whole_image_at_its_own_size_is_the_image(dtype, channels):
    top = {torch.uint8: 255, torch.uint16: 65535}.get(dtype, 1)
    image = (noise(2, channels, 13, 9) * top).to(dtype)
    same = resample(image, *whole(image), (13, 9))
    assert same.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert torch.equal(same, image.to(same.dtype))


def test_a_flip_is_exact_and_undoes_itself():
    image = noise(2, 3, 8, 11)
    yes = torch.tensor([True, True])
    assert torch.equal(resample(image, *whole(image), (8, 11), flip_x=yes), image.flip(3))
    assert torch.equal(resample(image, *whole(image), (8, 11), flip_y=yes), image.flip(2))


def test_an_even_image_stays_even_under_any_box():
    image = torch.full((5, 1, 20, 20), 7.0)
    boxes = torch.cat([noise(5, 2) * 8, 0.1 + noise(5, 2, seed=1) * 11], dim=1)
    for interpolation in ("bicubic", "bilinear"):
        torch.testing.assert_close(
            resample(image, whole(image)[0], boxes, (9, 30), interpolation=interpolation), torch.full((5, 1, 9, 30), 7.0)
        )


def test_fractions_of_a_pixel_move_a_ramp_by_that_much():
    ramp = torch.arange(40.0).expand(1, 1, 40, 40)
    box = torch.tensor([[0.0, 5.25, 40.0, 20.0]])
    moved = resample(ramp, whole(ramp)[0], box, (40, 20))[0, 0, 0]
    torch.testing.assert_close(moved[2:-2], torch.arange(5.25, 25.25)[2:-2])


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_padding_never_bleeds_into_a_view(turned, interpolation):
    data = torch.full((3, 2, 24, 30), float("inf"))
    sizes = torch.tensor([[24, 30], [10, 7], [1, 1]])
    alone = []
    angle = torch.tensor([0.4, 1.1, -2.0])
    for i, (height, width) in enumerate(sizes.tolist()):
        image = noise(1, 2, height, width, seed=i)
        data[i, :, :height, :width] = image
        rotation = angle[i : i + 1] if turned else None
        alone.append(resample(image, *whole(image), (12, 12), rotation=rotation, interpolation=interpolation))
    # Zero times infinity is not zero: what must not be seen is large, but finite.
    data = data.clamp(max=1e6)
    boxes = torch.cat([torch.zeros(3, 2), sizes], dim=1)
    together = resample(data, sizes, boxes, (12, 12), rotation=angle if turned else None, interpolation=interpolation)
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-5)


def test_cropping_sees_nothing_outside_its_box():
    image = noise(1, 1, 20, 20)
    box = torch.tensor([[5.0, 6.0, 8.0, 9.0]])
    changed = image + 100
    changed[:, :, 5:13, 6:15] = image[:, :, 5:13, 6:15]
    sizes = whole(image)[0]
    assert torch.equal(resample(image, sizes, box, (16, 16)), resample(changed, sizes, box, (16, 16)))


@pytest.mark.parametrize("degrees", [-170.0, -30.0, 10.0, 45.0, 90.0])
def test_rotation_is_that_of_kornia(degrees):
    image = smooth(2, 3, 40, 40)
    angle = torch.tensor([math.radians(degrees)] * 2)
    ours = resample(image, *whole(image), (40, 40), rotation=angle, interpolation="bilinear")
    theirs = kornia.geometry.transform.rotate(image, torch.tensor([degrees] * 2), mode="bilinear")
    y, x = torch.meshgrid(torch.arange(40.0) - 19.5, torch.arange(40.0) - 19.5, indexing="ij")
    inside = (y**2 + x**2).sqrt() < 18  # kornia is black where the image ends
    torch.testing.assert_close(ours[..., inside], theirs[..., inside], rtol=0, atol=2e-4)


def test_rotation_comes_after_crop_and_flip():
    image = smooth(1, 3, 60, 60)
    box, yes = torch.tensor([[10.0, 4.0, 40.0, 40.0]]), torch.tensor([True])
    ours = resample(image, whole(image)[0], box, (40, 40), flip_x=yes, rotation=torch.tensor([0.5]), interpolation="bilinear")
    step = kornia.geometry.transform.hflip(image[:, :, 10:50, 4:44])
    step = kornia.geometry.transform.rotate(step, torch.tensor([math.degrees(0.5)]), mode="bilinear")
    torch.testing.assert_close(ours[..., 12:28, 12:28], step[..., 12:28, 12:28], rtol=0, atol=1e-4)


def test_a_quarter_turn_moves_the_right_edge_to_the_top():
    image = torch.zeros(1, 1, 9, 9)
    image[..., -1] = 1
    turned = resample(image, *whole(image), (9, 9), rotation=torch.tensor([math.pi / 2]), interpolation="bilinear")
    assert turned[0, 0, 0].min() > 0.99
    assert turned[0, 0, 1:].max() < 0.01


def test_no_turn_at_all_is_the_plain_resize_of_an_enlarged_crop():
    image = smooth(2, 3, 20, 20)
    box = torch.tensor([[2.0, 3.0, 12.0, 14.0]] * 2)
    sizes = whole(image)[0]
    plain = resample(image, sizes, box, (24, 24), interpolation="bilinear")
    turned = resample(image, sizes, box, (24, 24), rotation=torch.zeros(2), interpolation="bilinear")
    # At the rim the turned view sees the surroundings of the box, the plain one does not.
    torch.testing.assert_close(turned[..., 2:-2, 2:-2], plain[..., 2:-2, 2:-2], rtol=0, atol=1e-5)


def test_what_a_turn_brings_in_from_outside_is_the_mirror_image():
    image = noise(1, 1, 6, 6)
    field = torch.zeros(1, 2, 6, 6)
    field[:, 1] = 6.0  # one image width to the right
    shifted = resample(image, *whole(image), (6, 6), field=field, interpolation="bilinear")
    torch.testing.assert_close(shifted, image.flip(3), rtol=0, atol=1e-5)
    field[:, 1] = -12.0  # twice folded: the image again
    torch.testing.assert_close(resample(image, *whole(image), (6, 6), field=field), image, rtol=0, atol=1e-4)


def test_a_field_shows_what_lies_that_far_down_and_right():
    image = noise(2, 3, 12, 15)
    field = torch.zeros(2, 2, 12, 15)
    field[0, 0], field[1, 1] = 2.0, 3.0
    moved = resample(image, *whole(image), (12, 15), field=field)
    torch.testing.assert_close(moved[0, :, :-2], image[0, :, 2:], rtol=0, atol=1e-4)
    torch.testing.assert_close(moved[1, :, :, :-3], image[1, :, :, 3:], rtol=0, atol=1e-4)


def test_a_field_of_its_own_at_every_pixel_is_read_at_the_pixel_of_the_view():
    image = noise(1, 1, 10, 10)
    field = torch.zeros(1, 2, 10, 10)
    field[0, 1, 4, 6] = -3.0
    moved = resample(image, *whole(image), (10, 10), field=field)
    expected = image.clone()
    expected[0, 0, 4, 6] = image[0, 0, 4, 3]
    torch.testing.assert_close(moved, expected, rtol=0, atol=1e-4)
