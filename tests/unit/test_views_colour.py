"""Changing colour: the composed map is what kornia's steps do one after another, as long as nothing is clipped."""

from __future__ import annotations

import itertools
import math

import kornia
import pytest
import torch

from tacit.views import colour
from tacit.views.colour import ColourMap, scaling

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)


def picture(batch: int = 2, channels: int = 3, seed: int = 0) -> torch.Tensor:
    """Values in the middle of the range, which moderate changes do not push out of it."""
    return 0.35 + 0.3 * torch.rand(batch, channels, 12, 10, generator=torch.Generator().manual_seed(seed))


def nothing(image: torch.Tensor) -> ColourMap:
    ones = image.new_ones(image.shape[:2])
    return scaling(ones, 0 * ones)


def jittered(image, brightness=1.0, contrast=1.0, saturation=1.0, hue=0.0, order=(0, 1, 2, 3), lift=0.0) -> torch.Tensor:
    batch = len(image)
    values = (torch.as_tensor(v, dtype=image.dtype).expand(batch) for v in (brightness, lift, contrast, saturation, hue))
    return colour.jitter(nothing(image), image.mean((2, 3)), *values, torch.tensor(order).expand(batch, 4))(image)


def test_scaling_is_the_map_with_its_matrix():
    """And what follows it is not taken for scaling."""
    image, gain, offset = picture(), torch.tensor([[0.5, 1.0, 2.0]]).repeat(2, 1), torch.tensor([[0.1, 0.0, -0.2]]).repeat(2, 1)
    found = scaling(gain, offset)
    torch.testing.assert_close(found(image), ColourMap(found.matrix, offset)(image), rtol=0, atol=1e-6)
    torch.testing.assert_close(found.then(found)(image), found(found(image)), rtol=0, atol=1e-6)


def test_neutral_factors_leave_the_image_alone():
    for channels in (1, 2, 3, 5):
        image = picture(channels=channels)
        torch.testing.assert_close(jittered(image), image, rtol=0, atol=1e-6)


@pytest.mark.parametrize("factor", [0.6, 1.0, 1.4])
def test_single_changes_are_those_of_kornia(factor):
    image = picture()
    for name, theirs in (
        ("brightness", kornia.enhance.adjust_brightness_accumulative),
        ("contrast", kornia.enhance.adjust_contrast_with_mean_subtraction),
        ("saturation", kornia.enhance.adjust_saturation_with_gray_subtraction),
    ):
        torch.testing.assert_close(jittered(image, **{name: factor}), theirs(image, factor), rtol=0, atol=1e-4)


def test_grey_is_that_of_kornia_in_the_chosen_samples_only():
    image = picture()
    ours = colour.grey(nothing(image), torch.tensor([True, False]))(image)
    torch.testing.assert_close(ours[0], kornia.color.rgb_to_grayscale(image[0]).expand(3, -1, -1), rtol=0, atol=1e-6)
    torch.testing.assert_close(ours[1], image[1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_any_order_of_changes_is_those_changes_one_after_another(order):
    """Contrast's mean is that of the image when its turn comes, not that of the first image."""
    image = picture()
    values = {"brightness": 1.2, "contrast": 0.7, "saturation": 1.3, "hue": 0.05}
    steps = {
        BRIGHTNESS: lambda x: kornia.enhance.adjust_brightness_accumulative(x, 1.2),
        CONTRAST: lambda x: kornia.enhance.adjust_contrast_with_mean_subtraction(x, 0.7),
        SATURATION: lambda x: kornia.enhance.adjust_saturation_with_gray_subtraction(x, 1.3),
        HUE: lambda x: jittered(x, hue=0.05),
    }
    expected = image
    for which in order:
        expected = steps[which](expected)
    torch.testing.assert_close(jittered(image, **values, order=order), expected, rtol=0, atol=2e-4)


def test_every_sample_has_factors_and_an_order_of_its_own():
    image = picture(batch=3)
    brightness, hue = torch.tensor([0.7, 1.0, 1.3]), torch.tensor([0.0, 0.1, -0.2])
    orders = torch.tensor([[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]])
    contrast = torch.tensor([0.5, 0.8, 1.2])
    together = colour.jitter(nothing(image), image.mean((2, 3)), brightness, 0 * hue, contrast, contrast, hue, orders)(image)
    for i in range(3):
        alone = jittered(image[i : i + 1], brightness[i], contrast[i], contrast[i], hue[i], orders[i].tolist())
        torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=1e-6)


def test_a_lift_is_added_when_the_turn_of_brightness_comes():
    image = picture()
    torch.testing.assert_close(jittered(image, lift=0.2), image + 0.2, rtol=0, atol=1e-6)
    after = jittered(image, lift=0.2, contrast=0.5, order=(1, 0, 2, 3))
    torch.testing.assert_close(after, jittered(image, contrast=0.5) + 0.2, rtol=0, atol=1e-6)


def test_order_matters():
    image = picture()
    assert not torch.allclose(
        jittered(image, brightness=1.4, hue=0.1, contrast=0.5, order=(0, 1, 2, 3)),
        jittered(image, brightness=1.4, hue=0.1, contrast=0.5, order=(1, 0, 2, 3)) + 0.001,
    )


@pytest.mark.parametrize("turns", [-0.4, -0.1, 0.07, 0.25, 0.5])
def test_hue_is_a_rotation_in_yiq(turns):
    """An independent reference: U and V, the colour differences of television, of which I and Q are a mirrored turn."""
    image = picture().double()
    red, green, blue = image.unbind(1)
    y = 0.299 * red + 0.587 * green + 0.114 * blue
    u, v = 0.492111 * (blue - y), 0.877283 * (red - y)
    turned = torch.polar((u**2 + v**2).sqrt(), torch.atan2(v, u) + 2 * math.pi * turns)
    red, blue = y + turned.imag / 0.877283, y + turned.real / 0.492111
    green = (y - 0.299 * red - 0.114 * blue) / 0.587
    torch.testing.assert_close(jittered(image, hue=turns), torch.stack([red, green, blue], dim=1), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("amplitude", "distance"), [(0.1, 0.04), (0.2, 0.06)])
def test_hue_stays_near_that_of_hsv(amplitude, distance):
    """Not the same: HSV moves the grey value. On colours as mixed as those of photographs they stay close."""
    generator = torch.Generator().manual_seed(0)
    image = (0.5 + 0.15 * torch.randn(64, 3, 8, 8, generator=generator)).clamp(0, 1)
    turns = amplitude * (2 * torch.rand(64, generator=generator) - 1)
    theirs = kornia.enhance.adjust_hue(image, 2 * math.pi * turns)
    assert (jittered(image, hue=turns).clamp(0, 1) - theirs).abs().mean() < distance


def test_hue_turns_red_towards_green_as_hsv_does():
    red = torch.tensor([0.8, 0.3, 0.3]).view(1, 3, 1, 1)
    for turns, strongest in ((0.0, 0), (1 / 3, 1), (-1 / 3, 2), (2 / 3, 2)):
        assert int(jittered(red, hue=turns).flatten().argmax()) == strongest


def test_hue_keeps_grey_values_and_undoes_itself():
    image = picture()
    turned = jittered(image, hue=0.2)
    torch.testing.assert_close(kornia.color.rgb_to_grayscale(turned), kornia.color.rgb_to_grayscale(image), rtol=0, atol=1e-5)
    torch.testing.assert_close(jittered(turned, hue=-0.2), image, rtol=0, atol=1e-5)
    torch.testing.assert_close(jittered(image, hue=1.0), image, rtol=0, atol=1e-5)


def test_contrast_of_three_channels_is_about_grey_and_of_others_about_each_channel():
    image = picture()
    image[:, 0] *= 1.5
    flat = jittered(image, contrast=0.0)
    torch.testing.assert_close(flat, kornia.color.rgb_to_grayscale(image).mean((2, 3), keepdim=True).expand_as(image))
    for channels in (1, 2, 4, 7):
        image = picture(channels=channels)
        flat = jittered(image, contrast=0.0)
        torch.testing.assert_close(flat, image.mean((2, 3), keepdim=True).expand_as(image))


@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_saturation_hue_and_grey_leave_other_than_three_channels_alone(channels):
    image = picture(channels=channels)
    torch.testing.assert_close(jittered(image, saturation=0.2, hue=0.3), image, rtol=0, atol=1e-6)
    torch.testing.assert_close(colour.grey(nothing(image), torch.tensor([True, True]))(image), image, rtol=0, atol=1e-6)


def test_maps_compose_to_the_map_of_both():
    generator = torch.Generator().manual_seed(1)
    first, second = (
        ColourMap(torch.randn(2, 3, 3, generator=generator), torch.randn(2, 3, generator=generator)) for _ in range(2)
    )
    image = picture()
    torch.testing.assert_close(first.then(second)(image), second(first(image)), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(first.of(image[:, :, 3, 4]), first(image)[:, :, 3, 4], rtol=1e-5, atol=1e-5)


def test_solarise_is_that_of_kornia_and_turns_128_of_255():
    image = torch.rand(2, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(colour.solarise(image, 0.5), kornia.enhance.solarize(image, 0.5))
    levels = torch.arange(256) / 255
    negative = colour.solarise(levels, 0.5)
    assert torch.equal(negative[:128], levels[:128])
    torch.testing.assert_close(negative[128:], 1 - levels[128:])
