"""Where views look: the boxes follow the papers' distribution and stay inside every sample."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tacit.core.draws import Draws
from tacit.views.crops import central_square, random_resized_crop

ASPECT = (3 / 4, 4 / 3)


def crops(height: int, width: int, area, aspect=ASPECT, count: int = 20_000, seed: int = 0) -> torch.Tensor:
    return random_resized_crop(Draws(seed, 0, torch.arange(count)), torch.tensor([[height, width]] * count), area, aspect)


def one_by_one(height: int, width: int, area, aspect, generator: torch.Generator) -> tuple[int, int, int, int]:
    """The same rule as the field's reference code writes it: one sample, a loop, the first try that fits."""

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    for _ in range(10):
        target = height * width * uniform(*area)
        shape = math.exp(uniform(math.log(aspect[0]), math.log(aspect[1])))
        w, h = round(math.sqrt(target * shape)), round(math.sqrt(target / shape))
        if 0 < w <= width and 0 < h <= height:
            top = int(torch.randint(0, height - h + 1, (), generator=generator))
            return top, int(torch.randint(0, width - w + 1, (), generator=generator)), h, w
    if width / height < aspect[0]:
        w, h = width, round(width / aspect[0])
    elif width / height > aspect[1]:
        w, h = round(height * aspect[1]), height
    else:
        w, h = width, height
    return (height - h) // 2, (width - w) // 2, h, w


@given(
    height=st.integers(1, 400),
    width=st.integers(1, 400),
    low=st.floats(0.01, 1),
    span=st.floats(0, 1),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=60, deadline=None)
def test_boxes_are_whole_pixels_inside_the_sample(height, width, low, span, seed):
    top, left, tall, wide = crops(height, width, (low, low + span * (1 - low)), count=50, seed=seed).unbind(1)
    for value in (top, left, tall, wide):
        assert torch.equal(value, value.round())
    assert (tall >= 1).all()
    assert (wide >= 1).all()
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + tall <= height).all()
    assert (left + wide <= width).all()


def test_area_is_uniform_and_aspect_log_uniform_where_every_try_fits():
    _, _, tall, wide = crops(1000, 1000, (0.08, 0.5)).double().unbind(1)
    share, shape = tall * wide / 1e6, (wide / tall).log()
    assert stats.kstest(share.numpy(), stats.uniform(0.08, 0.42).cdf).pvalue > 1e-5
    assert stats.kstest(shape.numpy(), stats.uniform(math.log(3 / 4), 2 * math.log(4 / 3)).cdf).pvalue > 1e-5
    assert abs(float(torch.corrcoef(torch.stack([share, shape]))[0, 1])) < 0.04


@pytest.mark.parametrize(
    ("height", "width", "area", "aspect"),
    [
        (32, 32, (0.08, 1), ASPECT),
        (60, 90, (0.2, 1), ASPECT),
        (20, 100, (0.5, 1), ASPECT),
        (50, 50, (0.1, 0.4), (1.0, 3.0)),
    ],
)
def test_boxes_are_distributed_as_the_reference_rule_distributes_them(height, width, area, aspect):
    generator = torch.Generator().manual_seed(0)
    slow = torch.tensor([one_by_one(height, width, area, aspect, generator) for _ in range(3000)], dtype=torch.float32)
    fast = crops(height, width, area, aspect)
    for column in range(4):
        assert stats.ks_2samp(slow[:, column].numpy(), fast[:, column].numpy()).pvalue > 1e-5


def test_a_box_is_anywhere_with_the_same_probability():
    """Of all places where a box of its size fits, none is preferred: the corners are reached."""
    top, left, tall, wide = crops(32, 32, (0.2, 0.3), count=50_000).unbind(1)
    same = (tall == 16) & (wide == 16)
    place = (top[same] * 17 + left[same]).long()
    assert stats.chisquare(torch.bincount(place, minlength=17 * 17).numpy()).pvalue > 1e-5


@pytest.mark.parametrize(
    ("size", "expected"),
    [((10, 100), (0, 43, 10, 13)), ((100, 10), (43, 0, 13, 10)), ((1, 9), (0, 4, 1, 1)), ((9, 1), (4, 0, 1, 1))],
)
def test_where_no_try_fits_the_largest_central_box_is_taken(size, expected):
    """All of a long sample, in an almost square box: every try fails."""
    assert crops(*size, (1.0, 1.0), count=200).unique(dim=0).tolist() == [list(expected)]


def test_a_box_of_the_whole_sample_is_the_whole_sample():
    for size in (1, 2, 33):
        assert crops(size, size, (1.0, 1.0), (1.0, 1.0), count=50).unique(dim=0).tolist() == [[0, 0, size, size]]


def test_every_sample_is_cropped_by_its_own_size():
    sizes = torch.tensor([[32, 32], [200, 100], [5, 9]])
    together = random_resized_crop(Draws(0, 0, torch.arange(3)), sizes, (0.2, 1), ASPECT)
    for i in range(3):
        alone = random_resized_crop(Draws(0, 0, torch.tensor([i])), sizes[i : i + 1], (0.2, 1), ASPECT)
        assert torch.equal(together[i], alone[0])


def test_the_central_square_lies_in_the_middle_on_whole_pixels():
    sizes = torch.tensor([[4, 4], [4, 9], [10, 3], [1, 6]], dtype=torch.int32)
    assert central_square(sizes).tolist() == [[0, 0, 4, 4], [0, 2, 4, 4], [3, 0, 3, 3], [0, 2, 1, 1]]
