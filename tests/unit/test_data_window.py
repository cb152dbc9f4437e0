"""Which part of a sample is wanted: the published rules for starts, distances and what is too short."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tacit.data.window import Box, Clip, Middle, Some, Spread, Stretch, cut

LAST = 1 - 2.0**-24
"""The largest number that is drawn."""


def frames(window, there: int, drawn: float = 0.0) -> list[int]:
    (found,) = window((there, 8, 8), [drawn] * window.drawn)
    assert found.dtype == np.int64
    return found.tolist()


def test_a_clip_starts_anywhere_and_ends_within():
    assert frames(Clip(3, 2), 10) == [0, 2, 4]
    assert frames(Clip(3, 2), 10, LAST) == [5, 7, 9]
    assert [frames(Clip(2), 3, drawn)[0] for drawn in (0.0, 0.49, 0.51, 1.0)] == [0, 0, 1, 1]


def test_a_clip_that_is_too_long_is_narrowed_and_then_repeats_frames_or_begins_again():
    assert frames(Clip(4, 3), 7) == [0, 2, 4, 6]
    assert frames(Clip(4, 3, loops=True), 7) == [0, 2, 4, 6]
    assert frames(Clip(4), 3) == [0, 1, 1, 2]
    assert frames(Clip(4, loops=True), 3) == [0, 1, 2, 0]
    assert frames(Clip(4, 2, loops=True), 4) == [0, 1, 2, 3]
    assert frames(Clip(3, 2), 1) == [0, 0, 0]


def test_some_places_are_those_of_the_whole_window():
    """Wherever it begins, and where it is too long; other axes stay whole."""
    some = Some(Clip(4, 3, loops=True), (0, 1, 3))
    assert [frames(some, there, 0.6) for there in (20, 7, 3)] == [
        [frames(Clip(4, 3, loops=True), there, 0.6)[number] for number in (0, 1, 3)] for there in (20, 7, 3)
    ]
    box = Some(Box((3, 4, 5)), (0, 2))
    assert [places.tolist() for places in box((9, 9, 9), [0.0] * box.drawn)] == [[0, 2], [0, 1, 2, 3], [0, 1, 2, 3, 4]]


def test_a_stretch_is_sampled_from_end_to_end_at_fractions_that_are_cut_off():
    assert frames(Stretch(4, 4), 100) == [0, 5, 10, 15]
    assert frames(Stretch(4, 3), 12) == [0, 3, 7, 11]
    assert frames(Stretch(4, 4), 17, LAST) == [0, 5, 10, 15]
    assert frames(Stretch(4, 4), 20, 0.6) == [2, 7, 12, 17]


def test_what_lies_beyond_a_short_sample_is_its_last_frame():
    assert frames(Stretch(4, 4), 11, 0.9) == [0, 5, 10, 10]
    assert frames(Stretch(1, 4), 3) == [0]


def test_the_middle_has_fewer_frames_where_there_are_fewer():
    assert frames(Middle(4, 2), 20) == [6, 8, 10, 12]
    assert frames(Middle(4, 2), 5) == [0, 2, 4]
    assert frames(Middle(4), 2) == [0, 1]


def test_a_glance_is_spread_over_the_whole_sample():
    assert frames(Spread(3), 9) == [0, 4, 8]
    assert frames(Spread(8), 3) == [0, 1, 2]
    assert frames(Spread(4), 1) == [0]


@given(
    there=st.integers(1, 200), count=st.integers(1, 40), stride=st.integers(1, 9), drawn=st.floats(0, 1, exclude_max=True)
)  # fmt: skip
@pytest.mark.parametrize("make", [Clip, Stretch, Middle, lambda count, stride: Clip(count, stride, loops=True)])
def test_frames_lie_in_the_sample_in_their_number_and_order(make, there, count, stride, drawn):
    window = make(count, stride)
    found = frames(window, there, drawn)
    assert all(0 <= frame < there for frame in found)
    assert len(found) == count or isinstance(window, Middle)
    assert found == sorted(found) or getattr(window, "loops", False)


def test_cutting_takes_places_along_the_first_axes():
    sample = np.arange(24).reshape(4, 3, 2)
    assert np.array_equal(cut(sample, [np.array([3, 1])]), sample[[3, 1]])
    assert np.array_equal(cut(sample, [np.array([2])], first=1), sample[:, [2]])
    assert np.array_equal(cut(sample, [np.array([0]), np.array([1])]), sample[:1, 1:2])
