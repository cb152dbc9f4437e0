"""Mask rules against slow versions written from the cards."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tacit.core.draws import Draws
from tacit.core.errors import TacitError
from tacit.views.masks import block_mask, grid_mask, hide_blocks, keep_of, kept, random_keep

quick = settings(max_examples=30, deadline=None)


def noise(rows: int, places: int, seed: int = 0) -> torch.Tensor:
    return Draws(seed, 0, torch.arange(rows)).uniform("noise", places)


@pytest.mark.parametrize(
    ("places", "ratio", "count"), [(50, 0.9, 4), (64, 0.6, 25), (20, 0.9, 1), (196, 0.75, 49), (16, 0.75, 4)]
)
def test_the_count_truncates_the_floating_product(places, ratio, count):
    """Mutations: round() instead of int(); k from the ratio instead of 1 - ratio."""
    assert kept(places, ratio) == count
    assert random_keep(noise(2, places), ratio).keep.shape == (2, count)


@pytest.mark.parametrize(("places", "ratio"), [(4, 0.9), (16, 1.0), (16, -0.1)])
def test_a_ratio_that_leaves_nothing_or_too_much_is_refused(places, ratio):
    with pytest.raises(TacitError, match="mask ratio"):
        kept(places, ratio)


@quick
@given(st.integers(2, 40), st.floats(0.0, 0.95), st.integers(0, 1000))
def test_random_keep_is_its_twin(places, ratio, seed):
    """Mutations: mask inverted; one mask for the whole batch; un-shuffling with the shuffle itself."""
    count = int(places * (1 - ratio))
    if count == 0:
        return
    given_noise = noise(3, places, seed)
    keep, mask, restore = random_keep(given_noise, ratio)
    for row, values in enumerate(given_noise.tolist()):
        shuffle = sorted(range(places), key=lambda place: values[place])
        assert keep[row].tolist() == shuffle[:count]
        assert mask[row].tolist() == [0.0 if place in shuffle[:count] else 1.0 for place in range(places)]
        assert restore[row].tolist() == [shuffle.index(place) for place in range(places)]
        assert [shuffle[place] for place in restore[row].tolist()] == list(range(places))
    assert mask.sum(1).tolist() == [places - count] * 3


def test_equal_noise_keeps_its_order():
    keep, _, restore = random_keep(torch.zeros(2, 8), 0.5)
    assert keep.tolist() == [[0, 1, 2, 3]] * 2
    assert restore.tolist() == [list(range(8))] * 2


def test_every_sample_is_masked_by_itself():
    mask = random_keep(noise(64, 16), 0.75).mask
    assert len({tuple(row) for row in mask.tolist()}) > 50
    turn = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(random_keep(noise(64, 16)[turn], 0.75).mask, mask[turn])


@pytest.mark.parametrize("grid", [(4, 4), (5, 3), (1, 1)])
def test_the_grid_shows_the_top_left_of_every_cell(grid):
    mask = grid_mask(grid).reshape(grid)
    for row in range(grid[0]):
        for column in range(grid[1]):
            assert mask[row, column] == (0 if row % 2 == 0 and column % 2 == 0 else 1)


def test_a_given_mask_is_kept_in_image_order():
    mask = torch.tensor([[1.0, 0, 1, 0], [0, 0, 1, 1]])
    keep, same, restore = keep_of(mask)
    assert keep.tolist() == [[1, 3], [0, 1]]
    assert torch.equal(same, mask)
    assert restore.tolist() == [[2, 0, 3, 1], [0, 1, 2, 3]]


def blocks_by_hand(stream, rows, columns, count, smallest):
    """BEiT's rule as the card of CAE words it, with its ten attempts a round."""
    mask, hidden, used = [[0] * columns for _ in range(rows)], 0, 0

    def draw():
        nonlocal used
        used += 1
        return stream[used - 1]

    while hidden != count:
        limit, delta = count - hidden, 0
        for _ in range(10):
            area = smallest + (limit - smallest) * draw()
            low, high = math.log(0.3), math.log(1 / 0.3)
            aspect = math.exp(low + (high - low) * draw())
            h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if w < columns and h < rows:
                top, left = math.floor(draw() * (rows - h + 1)), math.floor(draw() * (columns - w + 1))
                cells = [(r, c) for r in range(top, top + h) for c in range(left, left + w)]
                new = sum(1 - mask[r][c] for r, c in cells)
                if 0 < new <= limit:
                    for r, c in cells:
                        mask[r][c] = 1
                    delta = new
                    break
        hidden += delta
    return mask, used


@quick
@given(st.sampled_from([(8, 8, 32, 4), (14, 14, 98, 16), (6, 9, 40, 3), (4, 4, 12, 1)]), st.integers(0, 1000))
def test_the_block_rule_is_its_twin_and_takes_the_same_draws(case, seed):
    rows, columns, count, smallest = case
    stream = noise(1, 4096, seed)[0].tolist()
    expected, used = blocks_by_hand(stream, rows, columns, count, smallest)
    left = iter(stream)
    mask = hide_blocks(left, (rows, columns), count, smallest)
    assert mask is not None
    assert mask.reshape(rows, columns).tolist() == expected
    assert next(left) == stream[used]


def test_a_block_as_wide_as_the_grid_is_refused_after_two_draws():
    """Area 6 at aspect 0.3 is 1 x 4: no place is drawn for it, so the next two numbers are again area and aspect."""
    stream = iter([0.5, 0.0, 0.0, 0.5, 0.0, 0.0, 0.0, 0.5, 0.999, 0.999])
    mask = hide_blocks(stream, (4, 4), 8, smallest=4)
    assert mask is not None
    assert mask.reshape(4, 4).tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]
    assert hide_blocks(iter([0.5, 0.0, 0.0]), (4, 4), 8, smallest=4) is None


def test_block_masks_have_equal_counts_and_do_not_depend_on_the_batch():
    draws = Draws(0, 0, torch.arange(32))
    mask = block_mask(draws, (8, 8), 48)
    assert mask.sum(1).tolist() == [48.0] * 32
    assert torch.equal(block_mask(Draws(0, 0, torch.tensor([7, 3])), (8, 8), 48), mask[[7, 3]])
    assert len({tuple(row) for row in mask.tolist()}) == 32
    assert keep_of(mask).keep.shape == (32, 16)
    with pytest.raises(TacitError, match="block mask"):
        block_mask(draws, (1, 8), 4)
