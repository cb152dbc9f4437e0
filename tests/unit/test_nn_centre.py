"""The running mean of what a teacher says."""

from __future__ import annotations

import torch

from tacit.nn.centre import Centre

ROWS = torch.linspace(-1, 1, 12).double().reshape(4, 3)


def test_each_group_has_the_mean_of_its_own_rows_and_keeps_it_where_it_has_none():
    centre, group = Centre(3, 0.5, groups=3).double(), torch.tensor([2, 0, 2, 2])
    centre.mean[:] = 7.0
    centre.hear(ROWS[:1], group[:1])
    centre.hear(ROWS[1:], group[1:])
    centre.move()
    torch.testing.assert_close(centre.mean[0], 3.5 + 0.5 * ROWS[1])
    assert (centre.mean[1] == 7).all()
    torch.testing.assert_close(centre.mean[2], 3.5 + 0.5 * ROWS[[0, 2, 3]].mean(0))
    assert torch.equal(centre.of(group), centre.mean[group])


def test_it_moves_once_a_step_and_rests_where_nothing_was_said():
    centre = Centre(3, 0.9).double()
    centre.hear(ROWS)
    assert not centre.mean.any()
    centre.move()
    moved = centre.mean.clone()
    torch.testing.assert_close(moved, 0.1 * ROWS.mean(0, keepdim=True))
    centre.move()
    assert torch.equal(centre.mean, moved)


def test_it_is_wide_where_the_teacher_is_not():
    centre = Centre(1, 0.0)
    centre.hear(torch.full((4097, 1), 1.0, dtype=torch.bfloat16))
    centre.move()
    assert centre.mean.item() == 1.0
