"""Alice's parts against slow versions written from its card, and the card's invariants."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tacit.core.draws import Draws
from tacit.core.errors import TacitError
from tacit.nn.casa import CASA, AlignmentHead, drop
from tacit.nn.centre import Centre
from tacit.nn.ema import follow
from tacit.nn.swin3d import Swin3D, Swin3DDecoder
from tacit.objectives.alignment import half_square, same_view
from tacit.objectives.anatomy import anatomy_contrast, anatomy_logits, pairs, places_at
from tacit.objectives.distil import cross_view, sharpen
from tacit.views.volume_crops import body_box, body_points, crop_around, descriptors, first_good, match, same_position
from tacit.views.volume_masks import hidden_of, hide_boxes, hide_columns, spread

quick = settings(max_examples=15, deadline=None)
seeds = st.integers(0, 10_000)


def draws(rows: int, seed: int = 0) -> Draws:
    return Draws(seed, 0, torch.arange(rows))


def normal(*shape: int, seed: int = 0, name: str = "x") -> torch.Tensor:
    return draws(shape[0], seed).normal(name, *shape[1:]).double()


def near(a, b, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(
        torch.as_tensor(a, dtype=torch.float64), torch.as_tensor(b, dtype=torch.float64), rtol=0, atol=tolerance
    )


def softmax(values: list[float], temperature: float = 1.0) -> list[float]:
    top = max(values)
    powers = [math.exp((value - top) / temperature) for value in values]
    return [power / sum(powers) for power in powers]


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


# Losses


def entropy_by_hand(teacher: list[float], center: list[float], tau_t: float, student: list[float], tau_s: float) -> float:
    p = softmax([z - c for z, c in zip(teacher, center, strict=True)], tau_t)
    return -sum(a * math.log(b) for a, b in zip(p, softmax(student, tau_s), strict=True))


@quick
@given(st.integers(1, 3), st.integers(1, 4), st.integers(2, 5), seeds)
def test_the_loss_is_its_twin(b, tokens, k, seed):
    """Mutations: patches across views; tau_s on the teacher; no centre."""
    cls, teacher_cls = normal(2 * b, k, seed=seed), normal(2 * b, k, seed=seed, name="t")
    a, t = normal(2 * b, tokens, k, seed=seed, name="a"), normal(2 * b, tokens, k, seed=seed, name="at")
    c, c2 = normal(1, k, seed=seed, name="c"), normal(1, k, seed=seed, name="c2")
    crossed = [
        entropy_by_hand(teacher_cls[i].tolist(), c[0].tolist(), 0.3, cls[(i + b) % (2 * b)].tolist(), 0.5) for i in range(2 * b)
    ]
    near(cross_view(cls, sharpen(teacher_cls, c, 0.3), 0.5, views=2), (sum(crossed[:b]) / b + sum(crossed[b:]) / b) / 2)
    same = [
        [entropy_by_hand(t[i, j].tolist(), c2[0].tolist(), 0.2, a[i, j].tolist(), 0.6) for j in range(tokens)]
        for i in range(2 * b)
    ]
    first, second = (sum(map(sum, half)) / (b * tokens) for half in (same[:b], same[b:]))
    near(same_view(a, sharpen(t, c2, 0.2), 0.6), (first + second) / 2)


@quick
@given(st.integers(1, 3), seeds)
def test_the_reconstruction_is_its_twin(b, seed):
    made, x = normal(b, 1, 2, 3, 2, seed=seed), normal(b, 1, 2, 3, 2, seed=seed, name="v")
    m = draws(b, seed).chance("m", 0.5, 1, 2, 3, 2).double()
    m[0, 0, 0, 0, 0] = 1
    errors = [(p - v) ** 2 for p, v in zip(made.flatten().tolist(), x.flatten().tolist(), strict=True)]
    near(half_square(made, x), sum(errors) / len(errors) / 2)
    scored = [e for e, hidden in zip(errors, m.flatten().tolist(), strict=True) if hidden]
    near(half_square(made, x, m), sum(scored) / len(scored) / 2)


def test_cls_is_told_apart_across_views_and_patches_within_them():
    """Invariant 3: with view 1 in place of view 2, the cross-view loss is the same-view one."""
    b, k = 3, 5
    cls, teacher, center = normal(2 * b, k), normal(2 * b, k, name="t"), torch.zeros(1, k, dtype=torch.float64)
    once, twice = cls[:b].repeat(2, 1), teacher[:b].repeat(2, 1)
    near(
        cross_view(once, sharpen(twice, center, 0.1), 0.1, 2),
        same_view(cls[:b, None], sharpen(teacher[:b, None], center, 0.1), 0.1),
    )
    assert not torch.isclose(
        cross_view(cls, sharpen(teacher, center, 0.1), 0.1, 2), same_view(cls, sharpen(teacher, center, 0.1), 0.1)
    )


def test_centres_are_the_means_of_raw_logits_over_rows_and_tokens():
    """Mutations: the mean of probabilities; the mean over tokens forgotten; m and 1 - m exchanged."""
    t, before = normal(4, 3, 5), normal(1, 5, name="c")
    centre = Centre(5, 0.9).double()
    centre.mean.copy_(before)
    centre.hear(t)
    centre.move()
    for k in range(5):
        said = sum(t[i, j, k].item() for i in range(4) for j in range(3))
        near(centre.mean[0, k], 0.9 * float(before[0, k]) + 0.1 * said / 12)


# Head and CASA


def casa(dropout: float = 0.0) -> CASA:
    torch.manual_seed(0)
    return CASA(6, heads=2, head_width=3, hidden=7, dropout=dropout).double()


def test_casa_is_its_twin():
    model, query, keys = casa(), normal(2, 3, 6), normal(2, 4, 6, name="keys")
    w = {name: value.tolist() for name, value in model.named_parameters()}

    def times(matrix: list[list[float]], x: list[float]) -> list[float]:
        return [dot(row, x) for row in matrix]

    def norm(x: list[float], name: str) -> list[float]:
        mean = sum(x) / len(x)
        deviation = math.sqrt(sum((v - mean) ** 2 for v in x) / len(x) + 1e-6)
        return [(v - mean) / deviation * g + s for v, g, s in zip(x, w[f"{name}.weight"], w[f"{name}.bias"], strict=True)]

    out = model(query, keys)
    for i, j in itertools.product(range(2), range(3)):
        x, found = query[i, j].tolist(), []
        for head in range(2):
            part = slice(3 * head, 3 * head + 3)
            q = times(w["q.weight"], x)[part]
            scores = [dot(q, times(w["k.weight"], key)[part]) / math.sqrt(3) for key in keys[i].tolist()]
            values = [times(w["v.weight"], key)[part] for key in keys[i].tolist()]
            found += [sum(p * v[d] for p, v in zip(softmax(scores), values, strict=True)) for d in range(3)]
        y = norm([a + b for a, b in zip(times(w["proj.weight"], found), x, strict=True)], "norm1")
        hidden = [max(0.0, a + b) for a, b in zip(times(w["fc1.weight"], y), w["fc1.bias"], strict=True)]
        z = [a + b + c for a, b, c in zip(times(w["fc2.weight"], hidden), w["fc2.bias"], y, strict=True)]
        near(out[i, j], norm(z, "norm2"))


def test_the_order_of_keys_does_not_matter_and_that_of_queries_stays():
    """Invariant 4."""
    model, query, keys = casa(), normal(2, 5, 6), normal(2, 7, 6, name="keys")
    turn = torch.tensor([3, 0, 4, 1, 2])
    near(model(query, keys.flip(1)), model(query, keys))
    near(model(query[:, turn], keys), model(query, keys)[:, turn])
    near(model.attention(query, keys).sum(-1), torch.ones(2, 2, 5))


def test_dropout_silences_single_numbers_by_sample_and_keeps_the_mean():
    x = torch.ones(2 * 300, 4, 5).double()
    dropped = drop(x, 0.25, draws(300), "a")
    assert set(dropped.unique().tolist()) == {0.0, 1 / 0.75}
    assert float(dropped.mean()) == pytest.approx(1, abs=0.02)
    assert not torch.equal(dropped[:300], dropped[300:])
    assert torch.equal(drop(x[:10], 0.25, draws(10), "a"), dropped[:10])
    assert drop(x, 0.25, None, "a") is x


def test_casa_drops_in_three_places_and_only_with_draws():
    model, query, keys = casa(0.5), normal(2, 3, 6), normal(2, 4, 6, name="keys")
    near(model(query, keys), casa()(query, keys))
    one, other = (model(query, keys, draws(2).within(name)) for name in ("student", "teacher"))
    assert not torch.equal(one, other)
    assert torch.equal(model(query, keys, draws(2).within("student")), one)
    d = draws(2).within("student")
    weights = drop(model.attention(query, keys), 0.5, d, "attention")
    found = (weights @ model._heads(model.v(keys))).transpose(1, 2).flatten(2)
    y = model.norm1(drop(model.proj(found), 0.5, d, "proj") + query)
    near(one, model.norm2(y + drop(model.fc2(F.relu(model.fc1(y))), 0.5, d, "mlp")))


def head() -> AlignmentHead:
    torch.manual_seed(1)
    return AlignmentHead(6, 5, 4, out=7, hidden=8, bottleneck=3).double()


def test_logits_are_cosines():
    """Invariant 6: within [-1, 1], and blind to the length of what the MLP says."""
    model, e, d = head(), normal(2, 3, 5) * 50, normal(2, 9, 4) * 50
    before = model(normal(2, 6)), model.of_encoder(e), model.of_decoder(d)
    assert all(logits.abs().max() <= 1 + 1e-12 for logits in before)
    assert [tuple(logits.shape) for logits in before] == [(2, 7), (2, 3, 7), (2, 9, 7)]
    for parameter in (model.mlp[4].weight, model.mlp[4].bias):
        parameter.data *= 3.7
    for after, logits in zip((model(normal(2, 6)), model.of_encoder(e), model.of_decoder(d)), before, strict=True):
        near(after, logits)


def test_the_teachers_one_set_of_prototypes_starts_with_the_tokens_and_follows_the_vectors():
    student = head()
    teacher = student.teacher()
    assert student.last_layer2 is not None
    assert "last_layer2.weight_v" not in teacher.state_dict()
    tokens, start = student.last_layer2.weight_v.detach().clone(), student.last_layer.weight_v.detach().clone()
    assert not torch.equal(tokens, start)
    near(teacher.last_layer.weight_v, tokens)
    near(teacher.of_encoder(normal(2, 3, 5)), student.of_encoder(normal(2, 3, 5)))
    follow(teacher, student, 0.75)
    near(teacher.last_layer.weight_v, 0.75 * tokens + 0.25 * start)
    near(student.last_layer2.weight_v, tokens)
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


def test_the_teacher_gets_no_gradient_and_the_batch_has_no_order():
    """Invariants 5 and 9, on the whole of head, CASA and both losses."""
    student, model, b = head(), casa(), 3
    model = CASA(7, 2, 3, 5).double()
    teacher, center = student.teacher(), torch.zeros(1, 7, dtype=torch.float64)
    cls, e, d = normal(2 * b, 6), normal(2 * b, 3, 5), normal(2 * b, 9, 4)
    told = normal(2 * b, 9, 4, name="teacher").requires_grad_()
    query = student.of_encoder(e)

    def loss(rows: torch.Tensor) -> torch.Tensor:
        q = query[rows]
        a, t = model(q, student.of_decoder(d[rows])), model(q, teacher.of_decoder(told[rows]))
        target = sharpen(teacher(cls[rows]), center, 0.1)
        return cross_view(student(cls[rows]), target, 0.1, 2) + same_view(a, sharpen(t, center, 0.1), 0.1)

    usual = loss(torch.arange(2 * b))
    near(loss(torch.tensor([2, 0, 1, 5, 3, 4])), usual)
    usual.backward()
    assert told.grad is None
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert model.q.weight.grad is not None


# Masks


@quick
@given(st.integers(2, 4), st.integers(2, 4), st.integers(1, 3), st.floats(0.05, 0.7), seeds)
def test_masks_are_their_twins(gx, gy, gz, ratio, seed):
    """Invariant 2. Mutations: floor instead of ceil; boxes instead of columns; another axis fastest."""
    columns = draws(3, seed).permutation("columns", gx * gy)
    mask = spread(hide_columns(columns, (gx, gy), ratio), (2 * gx, 3 * gy, 5))
    assert mask.shape == (3, 1, 2 * gx, 3 * gy, 5)
    k = math.ceil(gx * gy * ratio)
    for i, x, y, z in itertools.product(range(3), range(2 * gx), range(3 * gy), range(5)):
        assert mask[i, 0, x, y, z] == float((x // 2) * gy + y // 3 in columns[i, :k].tolist())
    boxes = draws(3, seed).permutation("boxes", gx * gy * gz)
    mask, k = hide_boxes(boxes, (gx, gy, gz), ratio), math.ceil(gx * gy * gz * ratio)
    for i, x, y, z in itertools.product(range(3), range(gx), range(gy), range(gz)):
        assert mask[i, x, y, z] == float((x * gy + y) * gz + z in boxes[i, :k].tolist())


@pytest.mark.parametrize(("boxes", "ratio", "count"), [(16, 0.75, 12), (9, 0.75, 7), (25, 0.1, 3), (6, 0.34, 3)])
def test_the_hidden_count_is_rounded_up(boxes, ratio, count):
    """The product is whole in the golden file."""
    assert hidden_of(boxes, ratio) == count


@pytest.mark.parametrize(("boxes", "ratio"), [(1, 0.75), (4, 0.9), (16, 0.0)])
def test_a_ratio_that_shows_or_hides_nothing_is_refused(boxes, ratio):
    with pytest.raises(TacitError, match="mask ratio"):
        hidden_of(boxes, ratio)


def test_boxes_that_do_not_divide_the_volume_are_refused():
    with pytest.raises(TacitError, match="does not divide into 3 boxes"):
        spread(torch.zeros(1, 3, 2, 1), (8, 8, 8))


def test_changing_a_hidden_voxel_changes_nothing_for_the_student():
    """Invariant 1, on the encoder and decoder."""
    torch.manual_seed(0)
    model = Swin3D(1, 6, (1, 2), (2, 2), (2, 2)).double()
    decoder = Swin3DDecoder(model, 1).double()
    x = normal(2, 1, 8, 8, 8)
    mask = spread(hide_columns(draws(2).permutation("m", 4), (2, 2), 0.75), (8, 8, 8)).double()
    changed = x + 100 * mask

    def student(x: torch.Tensor) -> list[torch.Tensor]:
        seen = model(x * (1 - mask), taps=model.maps)
        return [seen.pooled, seen.tokens, *decoder([seen.taps[name] for name in model.maps], (8, 8, 8))]

    before, after = student(x), student(changed)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert not torch.equal(model(x).tokens, model(changed).tokens)
    assert half_square(before[-1], x) != half_square(before[-1], changed)


# Crops and pairs


@quick
@given(st.tuples(st.integers(1, 7), st.integers(1, 7), st.integers(1, 7)), seeds)
def test_crops_are_their_twin(roi, seed):
    """Invariant 7. Points may lie at the border; what is outside is 0, and so is padding."""
    volumes, sizes = normal(3, 2, 6, 5, 4, seed=seed), torch.tensor([[6, 5, 4], [3, 5, 2], [1, 1, 1]])
    points = torch.stack([draws(3, seed).integers(f"p{axis}", 0, side + 1) for axis, side in enumerate((6, 5, 4))], dim=1)
    crops = crop_around(volumes, points, roi, sizes)
    assert crops.shape == (3, 2, *roi)
    for i, (a, b, c) in itertools.product(range(3), itertools.product(*map(range, roi))):
        place = [int(points[i, axis]) - roi[axis] // 2 + offset for axis, offset in enumerate((a, b, c))]
        inside = all(0 <= p < int(sizes[i, axis]) for axis, p in enumerate(place))
        expected = volumes[i, :, place[0], place[1], place[2]] if inside else torch.zeros(2).double()
        assert torch.equal(crops[i, :, a, b, c], expected)


def test_a_crop_inside_is_the_plain_slice():
    x = normal(1, 1, 8, 9, 10)
    assert torch.equal(crop_around(x, torch.tensor([[4, 5, 6]]), (4, 4, 6)), x[:, :, 2:6, 3:7, 3:9])


def test_points_are_uniform_over_the_body_before_the_margin():
    volume = torch.zeros(2, 1, 8, 6, 4)
    volume[0, 0, 5:, 1:3, :] = 1  # 8 - 2 = 6: only 5 along the first axis; 4 - 1 = 3: 0 to 2 along the last
    allowed = {(5, y, z) for y in (1, 2) for z in range(3)}
    chances = ((torch.arange(600) + 0.5) / 600).expand(2, -1)
    points = body_points(volume, chances)
    counts = dict.fromkeys(allowed, 0)
    for place in points[0].tolist():
        counts[tuple(place)] += 1
    assert set(counts.values()) == {100}
    empty = {tuple(place) for place in points[1].tolist()}  # no body at all: any voxel before the margin
    assert empty == set(itertools.product(range(6), range(5), range(3)))
    small = body_points(volume[:1], chances[:1], torch.tensor([[6, 6, 4]]))  # 6 - 1 = 5: the body lies in the margin
    assert {tuple(place) for place in small[0].tolist()} == set(itertools.product(range(5), range(5), range(3)))
    wide = body_points(torch.ones(1, 1, 60, 2, 1), chances[:1])  # never more than 10
    assert wide[0].amax(0).tolist() == [49, 1, 0]


def unit(*shape: int, seed: int, name: str) -> torch.Tensor:
    return F.normalize(normal(*shape, seed=seed, name=name), dim=1)


@quick
@given(seeds)
def test_matching_is_its_twin(seed):
    """Mutations: x and z swapped; the coarse map not made unit again; the sum instead of the mean."""
    fine = [unit(2, 3, 4, 3, 5, seed=seed, name="fq"), unit(2, 3, 5, 4, 3, seed=seed, name="fk")]
    coarse = [unit(2, 4, 2, 2, 3, seed=seed, name="cq"), unit(2, 4, 3, 2, 2, seed=seed, name="ck")]
    ratio = [draws(2, seed).uniform(name, 3, low=0.5, high=1.5).double() for name in ("rq", "rk")]
    points = torch.stack([draws(2, seed).integers(f"{a}", 0, side, 4) for a, side in enumerate((9, 7, 11))], dim=-1)
    sizes = torch.tensor([[12, 4, 9], [5, 9, 2]])
    found, score = match(descriptors(fine[0], coarse[0]), descriptors(fine[1], coarse[1]), points, *ratio, 2, sizes)
    big = [F.interpolate(c, f.shape[2:], mode="trilinear", align_corners=False) for f, c in zip(fine, coarse, strict=True)]
    for i, j in itertools.product(range(2), range(4)):
        at = [math.floor(int(points[i, j, a]) * float(ratio[0][i, a]) / 2) for a in range(3)]
        x, y, z = (min(place, side - 1) for place, side in zip(at, (4, 3, 5), strict=True))
        best, where = -2.0, (0, 0, 0)
        for cell in itertools.product(range(5), range(4), range(3)):
            a, b = big[0][(i, slice(None), x, y, z)], big[1][(i, slice(None), *cell)]
            like = float(fine[0][i, :, x, y, z] @ fine[1][(i, slice(None), *cell)] + a @ b / a.norm() / b.norm()) / 2
            if like > best:
                best, where = like, cell
        near(score[i, j], best)
        expected = [min(int((where[a] * 2 + 0.5) / float(ratio[1][i, a])), int(sizes[i, a])) for a in range(3)]
        assert found[i, j].tolist() == expected


def test_a_volume_matches_itself():
    """Invariant 8."""
    made = descriptors(unit(1, 8, 6, 5, 4, seed=0, name="f"), unit(1, 8, 2, 2, 2, seed=0, name="c"))
    points, ratio = torch.tensor([[[0, 0, 0], [11, 9, 7], [5, 4, 3]]]), torch.ones(1, 3)
    found, score = match(made, made, points, ratio, ratio, 2, torch.tensor([[12, 10, 8]]))
    near(score, torch.ones(1, 3))
    assert ((found - points).abs() <= 2).all()
    assert torch.equal(found // 2, points // 2)


def test_padding_is_never_matched():
    query = descriptors(unit(1, 4, 3, 3, 3, seed=0, name="f"), unit(1, 4, 1, 1, 1, seed=0, name="c"))
    cells = torch.zeros(1, 3, 3, 3, dtype=torch.bool)
    cells[0, :2, :2, :2] = True
    points, ratio, sizes = torch.tensor([[[5, 5, 5]]]), torch.ones(1, 3), torch.tensor([[6, 6, 6]])
    assert match(query, query, points, ratio, ratio, 2, sizes)[0].tolist() == [[[4, 4, 4]]]
    assert match(query, query, points, ratio, ratio, 2, sizes, cells)[0].max() < 4


def test_the_first_good_try_is_taken_and_else_the_last():
    score = torch.tensor([[0.1, 0.71, 0.9], [0.7, 0.7, 0.2], [0.8, 0.1, 0.1]])
    assert first_good(score).tolist() == [1, 2, 0]
    assert first_good(score, 0.05).tolist() == [0, 0, 0]
    assert score[1, 2] == 0.2


def test_relative_positions_are_those_in_the_body():
    query, key = torch.zeros(2, 1, 8, 8, 8), torch.zeros(2, 1, 10, 9, 8)
    query[0, 0, 2:6, 1:3, 0:8] = 1
    key[0, 0, 1:9, 5:7, 4] = 0.5
    boxes = body_box(query), body_box(key)
    assert boxes[0].tolist() == [[[2, 1, 0], [6, 3, 8]], [[0, 0, 0], [8, 8, 8]]]
    assert boxes[1].tolist() == [[[1, 5, 4], [9, 7, 5]], [[0, 0, 0], [10, 9, 8]]]
    points = torch.tensor([[[2, 1, 0], [5, 2, 7]], [[0, 0, 0], [7, 7, 7]]])
    assert same_position(points, *boxes).tolist() == [[[2, 5, 4], [8, 6, 4]], [[0, 0, 0], [9, 8, 7]]]
    assert torch.equal(same_position(points, boxes[0], boxes[0]), points)


# Anatomy


@quick
@given(st.integers(1, 12), st.floats(0.2, 2.0), seeds)
def test_pairs_are_nearest_places_in_the_given_order(count, radius, seed):
    one, other = normal(2, 12, 3, seed=seed), normal(2, 9, 3, seed=seed, name="other") + 0.5
    noise = draws(2, seed).uniform("noise", 12)
    first, second, found = pairs(one, other, noise, count, radius)
    for i in range(2):
        distance = [[math.dist(a, b) for b in other[i].tolist()] for a in one[i].tolist()]
        low = [min(column) - radius for column in zip(*other[i].tolist(), strict=True)]
        high = [max(column) + radius for column in zip(*other[i].tolist(), strict=True)]
        within = [all(a <= p <= b for a, p, b in zip(low, place, high, strict=True)) for place in one[i].tolist()]
        ranked = sorted(range(12), key=lambda cell: (not within[cell], float(noise[i, cell])))
        assert first[i].tolist() == ranked[:count]
        for cell, partner, near_enough in zip(first[i].tolist(), second[i].tolist(), found[i].tolist(), strict=True):
            assert partner == min(range(9), key=lambda j: distance[cell][j])
            assert near_enough == (distance[cell][partner] <= radius)


@quick
@given(st.integers(1, 6), st.integers(0, 2), seeds)
def test_the_contrast_of_places_is_its_twin(hardest, others, seed):
    """Mutations: the easiest negatives; negatives that lie too near; anchors without a partner counted."""
    anchors, positives = (F.normalize(normal(2, 3, 4, seed=seed, name=name), dim=-1) for name in ("a", "p"))
    candidates = F.normalize(normal(2, 5, 4, seed=seed, name="c"), dim=-1)
    strangers = F.normalize(normal(2, 4, seed=seed, name="s"), dim=-1)[:others] if others else None
    allowed, found = draws(2, seed).chance("allowed", 0.6, 3, 5), draws(2, seed).chance("found", 0.7, 3)
    losses = []
    for i, j in itertools.product(range(2), range(3)):
        own = dot(anchors[i, j].tolist(), positives[i, j].tolist()) / 0.5
        hard = [dot(anchors[i, j].tolist(), candidates[i, m].tolist()) / 0.5 for m in range(5) if allowed[i, j, m]]
        hard = sorted(hard, reverse=True)[:hardest]
        hard += [dot(anchors[i, j].tolist(), row) / 0.5 for row in (strangers.tolist() if strangers is not None else [])]
        if found[i, j]:
            losses.append(math.log(math.exp(own) + sum(map(math.exp, hard))) - own)
    expected = sum(losses) / len(losses) if losses else 0.0
    near(anatomy_contrast(anchors, positives, candidates, allowed, found, 0.5, hardest, strangers), expected)


def test_a_contrast_without_negatives_or_partners_is_finite_with_its_gradient():
    anchors = F.normalize(normal(1, 2, 4), dim=-1).requires_grad_()
    positives, candidates = (F.normalize(normal(1, 2, 4, name=name), dim=-1) for name in ("p", "c"))
    nothing = torch.zeros(1, 2, 2, dtype=torch.bool)
    logits = anatomy_logits(anchors, positives, candidates, nothing, 0.5, 9)
    assert logits.shape == (1, 2, 3)
    for found in (torch.ones(1, 2, dtype=torch.bool), torch.zeros(1, 2, dtype=torch.bool)):
        loss = anatomy_contrast(anchors, positives, candidates, nothing, found)
        near(loss.detach(), 0)
        assert torch.isfinite(torch.autograd.grad(loss, anchors)[0]).all()
    assert places_at(candidates, torch.tensor([[1, 1, 0]])).shape == (1, 3, 4)
