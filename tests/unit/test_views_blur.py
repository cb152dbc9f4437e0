"""Blur and erasing, each with parameters of its own for every sample."""

from __future__ import annotations

import kornia
import pytest
import torch
import torch.nn.functional as F

from tacit.views.blur import gaussian_blur
from tacit.views.erase import erase


def noise(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def slow_blur(image: torch.Tensor, kernel_size: int, sigma: float) -> torch.Tensor:
    """From the card: r = int(k / 2), 2 r + 1 taps exp(-x^2 / (2 sigma^2)) over their sum, zero beyond the border."""
    reach = int(kernel_size / 2)
    taps = torch.tensor([-(x**2) / (2 * sigma**2) for x in range(-reach, reach + 1)], dtype=torch.float64).exp()
    taps /= taps.sum()
    batch, channels, height, width = image.shape
    padded = F.pad(image.double(), [reach] * 4)
    out = torch.zeros(batch, channels, height, width, dtype=torch.float64)
    for dy in range(2 * reach + 1):
        for dx in range(2 * reach + 1):
            out += taps[dy] * taps[dx] * padded[:, :, dy : dy + height, dx : dx + width]
    return out


@pytest.mark.parametrize("kernel_size", [0, 1, 2, 5, 8, 9, 23])
@pytest.mark.parametrize("size", [(1, 1), (3, 20), (17, 12)])
def test_blur_is_the_rule_of_the_card(kernel_size, size):
    image = noise(2, 3, *size)
    for sigma in (0.1, 1.1, 2.0):
        blurred = gaussian_blur(image, kernel_size, sigma)
        torch.testing.assert_close(blurred.double(), slow_blur(image, kernel_size, sigma), rtol=0, atol=1e-6)


def test_an_even_kernel_gets_one_more_tap():
    image = noise(1, 1, 20, 20)
    assert torch.equal(gaussian_blur(image, 8, 2.0), gaussian_blur(image, 9, 2.0))
    dot = torch.zeros(1, 1, 1, 21)
    dot[..., 10] = 1
    assert int((gaussian_blur(dot, 8, 5.0) > 0).sum()) == 9


def test_blur_is_that_of_kornia_and_every_sample_has_its_own_width():
    image, sigma = noise(4, 3, 24, 30), torch.tensor([0.1, 0.7, 1.3, 2.0])
    theirs = kornia.filters.gaussian_blur2d(image, (9, 9), torch.stack([sigma, sigma], dim=1), border_type="constant")
    torch.testing.assert_close(gaussian_blur(image, 9, sigma), theirs, rtol=0, atol=1e-5)


def test_a_narrow_blur_leaves_the_image_alone():
    image = noise(2, 3, 9, 9)
    torch.testing.assert_close(gaussian_blur(image, 23, 0.1), image, rtol=0, atol=1e-6)


def test_blur_keeps_the_level_inside_and_darkens_the_border():
    blurred = gaussian_blur(torch.ones(1, 1, 40, 40), 9, 1.5)
    torch.testing.assert_close(blurred[..., 4:-4, 4:-4], torch.ones(1, 1, 32, 32))
    assert blurred[0, 0, 0, 20] < 0.7


def test_erasing_wipes_out_exactly_the_box():
    image = noise(2, 3, 8, 9) + 1
    boxes = torch.tensor([[2.0, 3.0, 4.0, 1.0], [0.0, 0.0, 8.0, 9.0]])
    wiped = erase(image, boxes)
    expected = image.clone()
    expected[0, :, 2:6, 3:4] = 0
    expected[1] = 0
    assert torch.equal(wiped, expected)
