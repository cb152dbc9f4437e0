"""Objectives against slow float64 loops written from the cards, and the cards' invariants."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tacit.core.draws import Draws
from tacit.nn.centre import Centre
from tacit.objectives.contrast import moco, moco_chance, moco_logits, nt_xent, nt_xent_chance, nt_xent_logits, similarities
from tacit.objectives.distil import cross_view, entropy, sharpen, teacher_temperature
from tacit.objectives.reconstruct import masked_mse, normalised, normalised_chance

quick = settings(max_examples=20, deadline=None)
seeds = st.integers(0, 10_000)


def normal(*shape: int, seed: int = 0, name: str = "x") -> torch.Tensor:
    return Draws(seed, 0, torch.arange(shape[0])).normal(name, *shape[1:]).double()


def near(a, b, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(
        torch.as_tensor(a, dtype=torch.float64), torch.as_tensor(b, dtype=torch.float64), rtol=0, atol=tolerance
    )


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def softmax(values: list[float]) -> list[float]:
    top = max(values)
    total = sum(math.exp(value - top) for value in values)
    return [math.exp(value - top) / total for value in values]


# NT-Xent


def nt_xent_by_hand(first: torch.Tensor, second: torch.Tensor, t: float) -> float:
    n, z = len(first), [*first.tolist(), *second.tolist()]
    losses = []
    for i in range(2 * n):
        partner = (i + n) % (2 * n)
        others = [math.exp(cosine(z[i], z[j]) / t) for j in range(2 * n) if j != i]
        losses.append(-cosine(z[i], z[partner]) / t + math.log(sum(others)))
    return sum(losses[:n]) / n + sum(losses[n:]) / n


@quick
@given(st.integers(1, 6), st.integers(2, 7), st.sampled_from([0.1, 0.5, 1.0]), seeds)
def test_nt_xent_is_its_twin(n, d, t, seed):
    """Mutations: diagonal kept; partner masked; positives at i; mean over 2N; t multiplied; normalised over the batch."""
    first, second = normal(n, d, seed=seed, name="a"), normal(n, d, seed=seed, name="b")
    expected = nt_xent_by_hand(first, second, t)
    near(nt_xent(first, second, t), expected)
    near(nt_xent(first, second, t, reduction="paper"), expected / 2)


A, B = normal(6, 5, name="a"), normal(6, 5, name="b")


def test_nt_xent_does_not_mind_the_order_of_samples_or_views_or_the_length_of_rows():
    loss, turn = nt_xent(A, B, 0.2), torch.tensor([3, 1, 5, 0, 2, 4])
    near(nt_xent(A[turn], B[turn], 0.2), loss)
    near(nt_xent(B, A, 0.2), loss)
    near(nt_xent(A * torch.linspace(0.1, 50, 6)[:, None], B, 0.2), loss)


def test_nt_xent_of_equal_rows_is_its_chance():
    same = torch.ones(6, 5, dtype=torch.float64)
    near(nt_xent(same, same, 0.1), 2 * math.log(11))
    near(nt_xent_chance(6), 2 * math.log(11))
    near(nt_xent_chance(6, "paper"), math.log(11))


def test_gradients_of_nt_xent_are_orthogonal_to_the_rows():
    a = A.clone().requires_grad_()
    (grad,) = torch.autograd.grad(nt_xent(a, B, 0.2), a)
    near((grad * A).sum(1), torch.zeros(6))
    assert grad.norm() > 0.01


def test_ranks_together_have_the_loss_and_the_gradient_of_one_device():
    whole = [A.clone().requires_grad_(), B.clone().requires_grad_()]
    expected = nt_xent(whole[0], whole[1], 0.2)
    parts = [A.clone().requires_grad_(), B.clone().requires_grad_()]
    losses = [nt_xent(parts[0][s : s + 2], parts[1][s : s + 2], 0.2, parts[0], parts[1], offset=s) for s in (0, 2, 4)]
    near(torch.stack(losses).mean(), expected)
    for one, many in zip(
        torch.autograd.grad(expected, whole), torch.autograd.grad(torch.stack(losses).mean(), parts), strict=True
    ):
        near(many, one)


def test_short_rows_are_divided_by_the_floor_and_not_blown_up():
    """The official epsilon: z / sqrt(max(sum z^2, 1e-12)); MoCo's: z / max(|z|, 1e-12)."""
    short, unit = torch.tensor([[3e-8, 4e-8]], dtype=torch.float64), torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    logits, _ = nt_xent_logits(short, unit, 1.0)
    near(logits[0, 1], 0.03, 1e-14)
    near(moco_logits(short, unit, 1.0)[0], [[0.6]], 1e-14)
    near(moco_logits(1e-6 * short, unit, 1.0)[0], [[0.03]], 1e-14)
    assert torch.isfinite(nt_xent(0 * A, B, 0.1))


def test_rows_can_be_left_as_they_are():
    logits, _ = nt_xent_logits(A, B, 0.5, normalise=False)
    near(logits[0, 7], A[0] @ B[1] / 0.5)
    near(similarities(A, B, 2.0, floor=None), A @ B.T / 2)


def test_half_precision_still_has_wide_logits():
    with torch.autocast("cpu", torch.bfloat16):
        loss = nt_xent(A.bfloat16(), B.bfloat16(), 0.1)
        probabilities = sharpen(A.bfloat16(), torch.zeros(1, 5), 0.04)
    assert loss.dtype == probabilities.dtype == torch.float32
    near(loss, nt_xent(A.bfloat16().double(), B.bfloat16().double(), 0.1), 1e-4)


# MoCo v3


@quick
@given(st.integers(1, 5), st.integers(0, 4), st.sampled_from([0.2, 1.0]), seeds)
def test_moco_is_its_twin(n, offset, t, seed):
    """Mutations: the factor 2T missing; targets without the rank's offset."""
    query, keys = normal(n, 4, seed=seed, name="q"), normal(n + offset, 4, seed=seed, name="k")
    total = 0.0
    for i, q in enumerate(query.tolist()):
        row = [cosine(q, k) / t for k in keys.tolist()]
        total -= math.log(softmax(row)[offset + i])
    near(moco(query, keys, t, offset), 2 * t * total / n)


def test_keys_never_get_a_gradient_and_others_may_come_in_any_order():
    """Mutation: keys with gradient."""
    query, keys = A[:2].clone().requires_grad_(), B.clone().requires_grad_()
    loss = moco(query, keys, 0.2, offset=2)
    loss.backward()
    assert keys.grad is None
    near(moco(A[:2], B[[5, 0, 2, 3, 4, 1]], 0.2, offset=2), loss.detach())


def test_moco_of_equal_keys_is_its_chance():
    same = torch.ones(6, 5, dtype=torch.float64)
    near(2 * moco(A, same, 0.2), moco_chance(6, 0.2))


# DINO

V, G, ROWS, K = 4, 2, 3, 7
STUDENT, TEACHER, CENTER = normal(V * ROWS, K, name="s"), normal(G * ROWS, K, name="t"), normal(1, K, name="c")


def dino_by_hand(student, teacher, center, student_t, teacher_t, views, rows) -> float:
    pairs = []
    for i in range(2):
        for v in range(views):
            if v == i:
                continue
            terms = []
            for b in range(rows):
                p = softmax([(t - c) / teacher_t for t, c in zip(teacher[i * rows + b], center, strict=True)])
                q = softmax([s / student_t for s in student[v * rows + b]])
                terms.append(-sum(x * math.log(y) for x, y in zip(p, q, strict=True)))
            pairs.append(sum(terms) / rows)
    assert len(pairs) == 2 * (views - 1)
    return sum(pairs) / len(pairs)


@quick
@given(st.integers(2, 5), st.integers(1, 4), seeds)
def test_cross_view_is_its_twin(views, rows, seed):
    """Mutations: the same crop's pair; division by 2V; the teacher's temperature on the student; the centre left out."""
    student, teacher = normal(views * rows, K, seed=seed, name="s"), normal(2 * rows, K, seed=seed, name="t")
    expected = dino_by_hand(student.tolist(), teacher.tolist(), CENTER[0].tolist(), 0.1, 0.04, views, rows)
    near(cross_view(student, sharpen(teacher, CENTER, 0.04), 0.1, views), expected, 1e-8)


def dino(student=STUDENT, teacher=TEACHER, center=CENTER) -> torch.Tensor:
    return cross_view(student, sharpen(teacher, center, 0.04), 0.1, V)


def test_constants_that_softmax_cannot_see_change_nothing():
    shift = normal(1, K, name="shift")
    near(dino(teacher=TEACHER + shift, center=CENTER + shift), dino())
    near(dino(student=STUDENT + normal(V * ROWS, 1), teacher=TEACHER + 3.0), dino())


def test_images_and_local_crops_may_be_permuted():
    turn = torch.tensor([2, 0, 1])
    student, teacher = STUDENT.unflatten(0, (V, ROWS)), TEACHER.unflatten(0, (G, ROWS))
    near(dino(student[:, turn].flatten(0, 1), teacher[:, turn].flatten(0, 1)), dino())
    near(dino(student[[0, 1, 3, 2]].flatten(0, 1)), dino())
    assert abs(dino(student[[2, 1, 0, 3]].flatten(0, 1)) - dino()) > 1e-3


def test_teacher_and_centre_get_no_gradient():
    student, teacher, center = (x.clone().requires_grad_() for x in (STUDENT, TEACHER, CENTER))
    cross_view(student, sharpen(teacher, center, 0.04), 0.1, V).backward()
    assert teacher.grad is None
    assert center.grad is None
    assert student.grad is not None


def test_the_loss_is_the_teachers_entropy_plus_a_divergence():
    target = sharpen(TEACHER, CENTER, 0.04)
    floor = entropy(target)
    assert dino() > floor
    rows = [-sum(p * math.log(p) for p in row if p > 0) for row in target.tolist()]
    near(floor, sum(rows) / len(rows))
    # A student that repeats what the teacher says leaves only the entropy.
    same = TEACHER[:ROWS].repeat(V, 1)
    near(cross_view(0.1 * same, sharpen(same[: G * ROWS], 0 * CENTER, 1.0), 0.1, V), entropy(sharpen(same, 0 * CENTER, 1.0)))
    near(entropy(torch.full((3, 8), 1 / 8)), math.log(8), 1e-6)
    near(entropy(torch.eye(4)), 0.0)


def test_the_centre_follows_the_mean_of_raw_logits():
    """Mutations: from softmax outputs; without dividing by the number of rows. However many passes a step is made of."""
    expected = [
        0.9 * c + 0.1 * sum(column) / len(column) for c, column in zip(CENTER[0].tolist(), TEACHER.T.tolist(), strict=True)
    ]
    for passes in (1, 2):
        centre = Centre(CENTER.shape[1], 0.9).to(CENTER.dtype)
        centre.mean.copy_(CENTER)
        for part in TEACHER.chunk(passes):
            centre.hear(part)
        assert torch.equal(centre.mean, CENTER), "it moves after the step"
        centre.move()
        near(centre.mean, [expected])


def test_teacher_temperature_warms_up_as_linspace_does():
    near([teacher_temperature(e, 0.04, 0.07, 4) for e in range(6)], [0.04, 0.05, 0.06, 0.07, 0.07, 0.07])
    near([teacher_temperature(e, 0.04, 0.07, 1) for e in range(3)], [0.04, 0.07, 0.07])
    near([teacher_temperature(e, 0.04, 0.07, 0) for e in range(2)], [0.07, 0.07])


# MAE


def mae_by_hand(prediction, patches, mask, floor) -> float:
    above, below = 0.0, 0.0
    for b, row in enumerate(mask):
        for place, hidden in enumerate(row):
            t = patches[b][place]
            if floor is not None:
                mean = sum(t) / len(t)
                variance = sum((x - mean) ** 2 for x in t) / (len(t) - 1)
                t = [(x - mean) / math.sqrt(variance + floor) for x in t]
            error = sum((p - x) ** 2 for p, x in zip(prediction[b][place], t, strict=True)) / len(t)
            above, below = above + hidden * error, below + hidden
    return above / below


@quick
@given(st.sampled_from([None, 1e-6, 0.3]), seeds)
def test_masked_pixel_loss_is_its_twin_with_unequal_counts(floor, seed):
    """Mutations: all patches; biased variance; the floor outside the root; a mean of per-sample means."""
    patches, prediction = normal(3, 6, 5, seed=seed, name="t"), normal(3, 6, 5, seed=seed, name="p")
    mask = torch.tensor([[1.0, 0, 1, 1, 0, 1], [0, 0, 0, 1, 0, 0], [1, 1, 1, 1, 1, 0]], dtype=torch.float64)
    target = patches if floor is None else normalised(patches, floor)
    near(masked_mse(prediction, target, mask), mae_by_hand(prediction.tolist(), patches.tolist(), mask.tolist(), floor))


def test_visible_patches_have_no_loss_and_no_gradient():
    target, mask = normal(2, 4, 5, name="t"), torch.tensor([[1.0, 0, 1, 0], [0, 1, 1, 0]]).double()
    prediction = normal(2, 4, 5, name="p").requires_grad_()
    masked_mse(prediction, target, mask).backward()
    assert prediction.grad is not None
    assert (prediction.grad[mask == 0] == 0).all()
    assert (prediction.grad[mask == 1] != 0).all()
    right = torch.where(mask[..., None] > 0, target, prediction.detach())
    assert masked_mse(right, target, mask) == 0


def test_normalised_patches_have_mean_zero_and_unit_variance_whatever_the_contrast():
    patches = normal(2, 4, 12)
    target = normalised(patches)
    near(target.mean(-1), torch.zeros(2, 4))
    near(target.var(-1), torch.ones(2, 4), 1e-5)
    near(normalised(3 * patches + 2), target, 1e-5)
    assert normalised(torch.full((1, 1, 8), 0.3)).abs().max() < 1e-3


def test_a_floor_keeps_flat_patches_from_being_blown_up():
    flat = 1e-4 * normal(1, 1, 12)
    assert normalised(flat, floor=(2 / 255) ** 2).abs().max() < 0.05
    assert normalised(flat, floor=1e-12).abs().max() > 0.5


def test_predicting_nothing_costs_the_chance():
    target = normalised(normal(4, 9, 12), floor=0.0)
    near(masked_mse(torch.zeros_like(target), target, torch.ones(4, 9)), normalised_chance(12))


@pytest.mark.parametrize("objective", [nt_xent, moco])
def test_objectives_are_differentiable_in_float64(objective):
    a, b = A.clone().requires_grad_(), B.clone()
    assert torch.autograd.gradcheck(lambda x: objective(x, b, 0.3), (a,))
