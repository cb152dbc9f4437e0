"""Rates as functions of the position."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from tacit.core.errors import TacitError
from tacit.train.schedule import SCHEDULES, cosine, inclusive_warmup_cosine, linear, rate, scaled, warmup_cosine


def test_the_rate_grows_with_the_batch():
    assert scaled(1.5e-4, 4096) == pytest.approx(2.4e-3)


def test_cosine_and_line_run_from_start_to_end():
    assert (cosine(0, 0.04, 0.4), cosine(1, 0.04, 0.4)) == pytest.approx((0.04, 0.4))
    assert cosine(0.5, 1, 3) == pytest.approx(2)
    assert cosine(0.25, 1, 0) == pytest.approx(0.5 + math.sqrt(0.125))
    assert linear(0.25, 1, 3) == 1.5


def test_warm_up_counts_from_zero_and_reaches_its_rate_at_its_end():
    assert [warmup_cosine(e, 4, 20, 1.0) for e in (0, 1, 4, 12, 20)] == pytest.approx([0, 0.25, 1, 0.5, 0])
    assert warmup_cosine(2.5, 4, 20, 2.0) == pytest.approx(1.25)


def test_dinos_warm_up_reaches_its_rate_one_step_earlier():
    assert [inclusive_warmup_cosine(i, 4, 20, 1.0) for i in (0, 1, 3, 4)] == pytest.approx([0, 1 / 3, 1, 1])
    assert inclusive_warmup_cosine(19, 4, 20, 1.0, 0.1) > 0.1  # the end value itself is never reached
    assert inclusive_warmup_cosine(0, 1, 20, 1.0) == 0


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("warmup", [0, 1, 7])
def test_no_schedule_leaves_its_bounds_or_jumps(name, warmup):
    rates = [rate(name, step, warmup, 1000, 0.3, 0.01) for step in range(1001)]
    assert all(0 <= value <= 0.3 + 1e-12 for value in rates)
    assert max(rates) == pytest.approx(0.3)
    after = rates[warmup:]
    assert max(abs(a - b) for a, b in pairwise(after)) < 0.01
    assert rates[-1] == pytest.approx(0.3 if name == "constant" else 0.01)


def test_the_last_fifth_decays_where_that_is_asked_for():
    assert [rate("constant-decay", step, 10, 100, 1.0) for step in (5, 10, 80, 90, 100)] == pytest.approx([0.5, 1, 1, 0.5, 0])


def test_unknown_schedules_are_named():
    with pytest.raises(TacitError, match="did you mean 'cosine'"):
        rate("cosin", 0, 1, 2, 3)
