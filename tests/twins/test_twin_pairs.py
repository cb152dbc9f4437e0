"""Objectives on pairs, their figures and angles against slow float64 loops written from the cards; the cards' invariants."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from tacit.core.draws import Draws
from tacit.data.phases import bounds
from tacit.evaluation.angles import deviation, rotation, self_angles, topology_change
from tacit.evaluation.recall import recall
from tacit.evaluation.zero_shot import class_logits, classifier, top
from tacit.objectives.pairs import (
    CEILING,
    align,
    clamp_scale,
    contrast,
    contrast_chance,
    cosines,
    imitate,
    repeats,
    screen,
    sigmoid_contrast,
    unit,
)

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


def matrix(rows: torch.Tensor, columns: torch.Tensor) -> list[list[float]]:
    return [[cosine(a, b) for b in columns.tolist()] for a in rows.tolist()]


def turned(rows: list[list[float]]) -> list[list[float]]:
    return [list(column) for column in zip(*rows, strict=True)]


def log_softmax(values: list[float]) -> list[float]:
    top = max(values)
    total = math.log(sum(math.exp(value - top) for value in values)) + top
    return [value - total for value in values]


def pairs(n: int, d: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    return normal(n, d, seed=seed, name="image"), normal(n, d, seed=seed, name="text")


def both(image: torch.Tensor, text: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return cosines(unit(image), unit(text))


# Contrast


def contrast_by_hand(z: list[list[float]], s: float, same: list[list[bool]] | None = None) -> float:
    total = 0.0
    for rows in (z, turned(z)):
        for i, row in enumerate(rows):
            others = [math.exp(s * x) for j, x in enumerate(row) if same is None or i == j or not same[i][j]]
            total += math.log(sum(others)) - s * row[i]
    return total / len(z) / 2


@quick
@given(st.integers(1, 6), st.integers(2, 7), st.sampled_from([0.0, 1.0, 2.6593]), seeds)
def test_contrast_is_its_twin(n, d, t, seed):
    """Mutations: temperature multiplied; one direction only; sum, not mean; normalised over the batch."""
    image, text = pairs(n, d, seed)
    near(contrast(*both(image, text), math.exp(t)), contrast_by_hand(matrix(image, text), math.exp(t)))


@quick
@given(st.integers(2, 7), seeds)
def test_contrast_without_repeated_captions_is_its_twin(n, seed):
    image, text = pairs(n, 4, seed)
    tokens = Draws(seed, 0, torch.arange(n)).integers("tokens", 0, 2, 2)
    same = [[a == b for b in tokens.tolist()] for a in tokens.tolist()]
    ignore = repeats(tokens)
    assert ignore.tolist() == [[same[i][j] and i != j for j in range(n)] for i in range(n)]
    near(contrast(*both(image, text), 3.0, ignore=ignore), contrast_by_hand(matrix(image, text), 3.0, same))


def test_contrast_does_not_mind_order_side_or_length():
    image, text = pairs(6, 5)
    loss, turn = contrast(*both(image, text), 10.0), torch.tensor([3, 1, 5, 0, 2, 4])
    near(contrast(*both(image[turn], text[turn]), 10.0), loss)
    near(contrast(*both(text, image), 10.0), loss)
    near(contrast(*both(image * torch.linspace(0.1, 50, 6)[:, None], text), 10.0), loss)


def test_contrast_of_equal_rows_is_its_chance():
    same = torch.ones(6, 5, dtype=torch.float64)
    near(contrast(*both(same, same), 14.3), contrast_chance(6))
    near(contrast_chance(6), math.log(6))


def of_ranks(loss, *features: torch.Tensor, ranks: int = 3) -> torch.Tensor:
    """The mean over ranks of `loss(own, all, offset)`, own and all being lists as long as `features`."""
    rows = len(features[0]) // ranks
    parts = [loss([x[s : s + rows] for x in features], features, s) for s in range(0, len(features[0]), rows)]
    return torch.stack(parts).mean()


def test_ranks_together_have_the_loss_and_the_gradient_of_one_device():
    """Mutations: labels without the rank's offset; the alignment not times the number of ranks."""
    image, text = (x.requires_grad_() for x in pairs(6, 5))
    older = pairs(6, 5, seed=1)
    tokens = torch.tensor([[1, 2], [3, 4], [1, 2], [5, 6], [3, 4], [1, 2]])
    t = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)

    def everything(own, everyone, offset):
        (f, g, f_old, g_old, ids), (all_f, all_g, all_f_old, all_g_old, all_ids) = own, everyone
        new, old = cosines(f, g, all_f, all_g), cosines(f_old, g_old, all_f_old, all_g_old)
        same = repeats(ids, all_ids, offset)
        aligned = sum(align(o, n, screen(o, offset, same)) for o, n in zip(old, new, strict=True))
        off_diagonal = align(old[0], new[0], screen(old[0], offset), diagonal=False, offset=offset)
        sigmoid = sigmoid_contrast(new[0], t.exp(), -3.0, offset, same)
        return contrast(*new, t.exp(), offset, same) + sigmoid + 5 * aligned + off_diagonal

    features = [unit(x) for x in (image, text, *older)] + [tokens]
    whole, split = everything(features, features, 0), of_ranks(everything, *features)
    near(split, whole)
    for one, many in zip(*(torch.autograd.grad(x, [image, text, t], retain_graph=True) for x in (whole, split)), strict=True):
        assert one.norm() > 0.01
        near(many, one)


def test_half_precision_still_has_wide_losses():
    image, text = (x.bfloat16() for x in pairs(6, 5))
    with torch.autocast("cpu", torch.bfloat16):
        new = both(image, text)
        assert contrast(*new, 10.0).dtype == align(*new, screen(new[1])).dtype == torch.float32


@quick
@given(st.integers(1, 6), st.floats(0.5, 10), st.floats(-10, 0), seeds)
def test_sigmoid_contrast_is_its_twin(n, s, b, seed):
    """Mutation: divided by N^2."""
    image, text = pairs(n, 4, seed)
    expected = sum(
        math.log(1 + math.exp(-(1 if i == j else -1) * (s * x + b)))
        for i, row in enumerate(matrix(image, text))
        for j, x in enumerate(row)
    )
    near(sigmoid_contrast(both(image, text)[0], s, b), expected / n)


@quick
@given(st.integers(1, 6), seeds)
def test_imitation_is_its_twin(n, seed):
    student, teacher = pairs(n, 4, seed), pairs(n, 3, seed + 1)
    expected = 0.0
    for turn in (lambda rows: rows, turned):
        for ours, theirs in zip(turn(matrix(*student)), turn(matrix(*teacher)), strict=True):
            p, log_q = log_softmax([14 * x for x in theirs]), log_softmax([10 * x for x in ours])
            expected -= sum(math.exp(a) * b for a, b in zip(p, log_q, strict=True))
    near(imitate(*both(*student), 10, *both(*teacher), 14), expected / n / 2)


def test_t_stays_between_its_bounds():
    for value in (-1.0, 0.0, 2.0, 4.61, 99.0):
        t = nn.Parameter(torch.tensor(value, dtype=torch.float64))
        clamp_scale(t)
        assert t.item() == min(max(value, 0.0), math.log(100))
        assert t.requires_grad
        assert t.grad is None
    assert pytest.approx(math.log(100)) == CEILING


def test_micro_batches_one_by_one_have_the_gradient_of_the_big_batch():
    """Mutation: the mean of small losses, which have too few negatives."""
    image, text = (nn.Linear(4, 5, bias=False).double() for _ in range(2))
    t = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))
    x, y = (side.split(2) for side in pairs(6, 4))
    parameters = [*image.parameters(), *text.parameters(), t]
    loss = contrast(*both(image(torch.cat(x)), text(torch.cat(y))), t.exp())
    expected = torch.autograd.grad(loss, parameters)
    with torch.no_grad():
        cached = [[unit(image(part)) for part in x], [unit(text(part)) for part in y]]
    for j in range(3):
        live = copy.copy(cached[0]), copy.copy(cached[1])
        live[0][j], live[1][j] = unit(image(x[j])), unit(text(y[j]))
        last = t if j == 2 else t.detach()
        contrast(*cosines(torch.cat(live[0]), torch.cat(live[1])), last.exp()).backward()
    for parameter, grad in zip(parameters, expected, strict=True):
        near(parameter.grad, grad)
    small = torch.stack([contrast(*both(image(a), text(b)), t.exp()) for a, b in zip(x, y, strict=True)]).mean()
    assert small < 0.9 * loss


# Mod-X


def first_argmax(row: list[float]) -> int:
    return next(j for j, x in enumerate(row) if x == max(row))


def align_by_hand(old: list[list[float]], new: list[list[float]], temperature: float = 1.0) -> float:
    total = 0.0
    for i, (o, s) in enumerate(zip(old, new, strict=True)):
        if first_argmax(o) == i:
            log_p, log_q = (log_softmax([x / temperature for x in row]) for row in (o, s))
            total += sum(math.exp(a) * (a - b) for a, b in zip(log_p, log_q, strict=True))
    return total


@quick
@given(st.integers(1, 8), st.sampled_from([0.1, 1.0]), seeds)
@example(6, 1.0, 0)
def test_alignment_is_its_twin(n, temperature, seed):
    """Mutations: screened by the current matrix; by column; one mask for both directions; KL turned round; mean; exp(t)."""
    image, text = pairs(n, 4, seed)
    # An older model that is right about some rows.
    old_text = 0.5 * image + normal(n, 4, seed=seed, name="noise")
    new, old = both(image, text), both(image, old_text)
    by_hand = matrix(image, text), matrix(image, old_text)
    for turn, o, s in zip((lambda rows: rows, turned), old, new, strict=True):
        assert screen(o).tolist() == [first_argmax(row) == i for i, row in enumerate(o.tolist())]
        near(align(o, s, screen(o), temperature), align_by_hand(turn(by_hand[1]), turn(by_hand[0]), temperature))


def test_the_first_of_equal_columns_is_the_largest():
    tie = torch.tensor([[2.0, 2.0, 1.0], [3.0, 3.0, 1.0], [0.0, 1.0, 1.0]])
    assert screen(tie).tolist() == [True, False, False]
    same = torch.tensor([[False, True, False], [True, False, False], [False, False, False]])
    assert screen(tie, same=same).tolist() == [True, True, False]
    assert screen(tie[1:], offset=1, same=same[1:]).tolist() == [True, False]


@pytest.mark.parametrize("diagonal", [True, False])
def test_a_model_that_is_its_own_past_is_aligned(diagonal):
    new = both(*(x.requires_grad_() for x in pairs(6, 5)))[0]
    loss = align(new.detach(), new, torch.ones(6, dtype=torch.bool), diagonal=diagonal)
    near(loss, 0.0)
    near(torch.autograd.grad(loss, new)[0], torch.zeros(6, 6))


def test_an_older_model_that_is_always_wrong_teaches_nothing():
    image, text = pairs(6, 5)
    image.requires_grad_()
    old = torch.roll(torch.eye(6, dtype=torch.float64), 1, dims=1)
    loss = align(old, both(image, text)[0], screen(old))
    assert loss == 0
    assert (torch.autograd.grad(loss, image)[0] == 0).all()


def test_targets_carry_no_gradient_and_the_loss_is_not_negative():
    old, new = (both(*pairs(6, 5, seed))[0].requires_grad_() for seed in (0, 1))
    loss = align(old, new, torch.ones(6, dtype=torch.bool))
    assert loss > 0
    of_old, of_new = torch.autograd.grad(loss, [old, new], allow_unused=True)
    assert of_old is None
    assert of_new.norm() > 0


def test_images_and_texts_are_screened_apart():
    old = torch.tensor([[0.9, 0.1], [0.8, 0.2]])
    assert screen(old).tolist() == [True, False]
    assert screen(old.T).tolist() == [True, True]


def test_without_the_diagonal_only_the_rest_of_a_row_counts():
    old, new = (both(*pairs(5, 4, seed))[0] for seed in (0, 1))
    everything, changed = torch.ones(5, dtype=torch.bool), new + torch.diag(torch.linspace(-1, 1, 5))
    near(align(old, changed, everything, diagonal=False), align(old, new, everything, diagonal=False))
    assert align(old, changed, everything) != align(old, new, everything)


@pytest.mark.parametrize(("samples", "phases"), [(61, 7), (103, 5), (3, 5), (1000, 1), (122, 14)])
def test_phases_partition_the_stream(samples, phases):
    edges = bounds(samples, phases)
    assert edges[0] == 0
    assert edges[-1] == samples
    assert len(edges) == phases + 1
    assert edges == sorted(edges)


# Figures


def rank_by_hand(row: list[float], right: list[int]) -> int:
    ordered = sorted(range(len(row)), key=lambda j: (-row[j], j))
    return min(ordered.index(j) for j in right)


@quick
@given(st.integers(1, 5), st.integers(1, 3), seeds)
def test_recall_is_its_twin(n, most, seed):
    """Images with any number of captions, some of which read alike; cosines from a coarse grid, so that many are equal."""
    draws = Draws(seed, 0, torch.arange(n * most))
    owner = torch.cat([torch.arange(n), draws.integers("owner", 0, n)[: n * most - n]])
    wording = draws.integers("wording", 0, n + 1)
    images = nn.functional.one_hot(draws.integers("image", 0, 3)[:n], 3).double()
    captions = nn.functional.one_hot(draws.integers("caption", 0, 3), 3).double() + 0.5
    scores = (nn.functional.normalize(images, dim=1) @ nn.functional.normalize(captions, dim=1).T).round(decimals=9)
    owned = [{wording[j].item() for j in range(len(owner)) if owner[j] == i} for i in range(n)]
    to_text, to_image = recall(images, captions, owner, wording)
    for i in range(n):
        right = [j for j in range(len(owner)) if wording[j].item() in owned[i]]
        assert to_text.ranks[i] == rank_by_hand(scores[i].tolist(), right)
    for j in range(len(owner)):
        right = [i for i in range(n) if wording[j].item() in owned[i]]
        assert to_image.ranks[j] == rank_by_hand(scores[:, j].tolist(), right)


def test_a_caption_that_stands_for_many_images_finds_the_first():
    images = torch.eye(3, dtype=torch.float64)
    captions = torch.tensor([[1.0, 0, 0], [1, 0, 0], [0, 0, 1]], dtype=torch.float64)
    assert [found.ranks.tolist() for found in recall(images, captions)] == [[0, 1, 0], [0, 1, 0]]
    alike = recall(images, captions, wording=torch.tensor([7, 7, 2]))
    assert [found.ranks.tolist() for found in alike] == [[0, 0, 0], [0, 0, 0]]
    assert alike[0].values() == {"recall@1": 1.0, "recall@5": 1.0, "recall@10": 1.0, "mean_rank": 1.0, "median_rank": 1}


def test_recall_in_blocks_is_recall_at_once(monkeypatch):
    images, captions, owner = normal(7, 4), normal(14, 4, name="c"), torch.arange(14) % 7
    whole = recall(images, captions, owner)
    monkeypatch.setattr("tacit.evaluation.recall.BLOCK", 30)
    for one, other in zip(whole, recall(images, captions, owner), strict=True):
        assert torch.equal(one.ranks, other.ranks)


def test_zero_shot_is_its_twin():
    prompts, images, labels = normal(3, 2, 4), normal(5, 4, name="image"), torch.tensor([0, 1, 2, 1, 0])
    hits = {1: 0, 2: 0}
    for image, label, logits in zip(images, labels, class_logits(images, classifier(prompts)), strict=True):
        for k in range(3):
            each = [[x / math.hypot(*p) for x in p] for p in prompts[k].tolist()]
            mean = [sum(column) / len(each) for column in zip(*each, strict=True)]
            near(logits[k], 100 * cosine(image.tolist(), mean))
        order = logits.argsort(descending=True).tolist()
        for depth in hits:
            hits[depth] += label.item() in order[:depth]
    for depth, count in hits.items():
        assert top(class_logits(images, classifier(prompts)), labels, depth) == count / 5


def test_angles_are_their_twins():
    old, new = pairs(5, 4), pairs(5, 4, seed=1)

    def angle(a: torch.Tensor, b: torch.Tensor) -> float:
        return math.degrees(math.acos(max(-1.0, min(1.0, cosine(a.tolist(), b.tolist())))))

    turns = [[angle(a, b) for a, b in zip(*side, strict=True)] for side in zip(old, new, strict=True)]
    near(rotation(old[0], new[0]), turns[0])
    near(deviation(old[0], new[0], old[1], new[1]), [abs(a - b) for a, b in zip(*turns, strict=True)])
    near(self_angles(old[0])[1, 3], angle(old[0][1], old[0][3]))
    places = [(i, j) for i in range(5) for j in range(5) if i != j]
    changes = [abs(angle(new[0][i], new[0][j]) - angle(old[0][i], old[0][j])) for i, j in places]
    near(topology_change(old[0], new[0]), sum(changes) / len(changes))


def test_a_common_turn_changes_no_angle_among_samples():
    features = normal(6, 4)
    turn = torch.linalg.qr(normal(4, 4, name="turn"))[0]
    near(topology_change(features, features @ turn), 0.0, 1e-4)
    assert rotation(features, features @ turn).mean() > 10
    near(rotation(features, 3 * features), torch.zeros(6), 1e-4)
