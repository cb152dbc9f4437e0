"""Rules and objectives for video against slow float64 versions written from the cards."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tacit.core.draws import Draws
from tacit.core.errors import TacitError
from tacit.data.window import Clip, Stretch
from tacit.nn.heads3d import activation_map
from tacit.nn.spacetime import predicted_frames, tubelets, untubelets
from tacit.objectives.speed import appearance, appearance_chance, relative_speed, scores, speed_accuracy
from tacit.views.clips import EvenClip, Speeds, even_clips, fast_ones, last_start
from tacit.views.masks import random_keep
from tacit.views.masks_time import center_ranks, temporal_ranks, tube_keep

quick = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 10_000)
units = st.floats(0, 1, exclude_max=True)


def normal(*shape: int, seed: int = 0, name: str = "x") -> torch.Tensor:
    return Draws(seed, 0, torch.arange(shape[0])).normal(name, *shape[1:]).double()


def unit(*shape: int, seed: int = 0, name: str = "x") -> torch.Tensor:
    return torch.nn.functional.normalize(normal(*shape, seed=seed, name=name), dim=-1)


def near(a, b, tolerance: float = 1e-10) -> None:
    a, b = (torch.as_tensor(value, dtype=torch.float64) for value in (a, b))
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def dot(a: torch.Tensor, b: torch.Tensor) -> float:
    return sum(x * y for x, y in zip(a.tolist(), b.tolist(), strict=True))


# Tubelets


@pytest.mark.parametrize(("channels", "frames", "side", "u", "p"), [(3, 4, 6, 2, 3), (1, 6, 4, 3, 2), (2, 3, 4, 1, 4)])
def test_tubelets_are_their_twin(channels, frames, side, u, p):
    """Mutations: channel first; places before time; frame fastest."""
    clips = normal(2, channels, frames, side, side)
    rows = tubelets(clips, u, p)
    grid = (frames // u, side // p, side // p)
    for sample in range(2):
        token = 0
        for t in range(grid[0]):
            for y in range(grid[1]):
                for x in range(grid[2]):
                    expected = [
                        float(clips[sample, c, t * u + f, y * p + i, x * p + j])
                        for f in range(u)
                        for i in range(p)
                        for j in range(p)
                        for c in range(channels)
                    ]
                    assert rows[sample, token].tolist() == expected
                    token += 1
        assert token == rows.shape[1]
    assert torch.equal(untubelets(rows, u, p, grid), clips)


@pytest.mark.parametrize(
    ("frames", "u", "count"), [(16, 2, 16), (16, 2, 8), (8, 4, 2), (4, 2, 4), (9, 3, 3), (12, 4, 6), (2, 2, 1)]
)
def test_predicted_frames_are_their_twin(frames, u, count):
    index, held = predicted_frames(frames, u, count)
    assert index.tolist() == [math.floor(i * (frames - 1) / max(count - 1, 1)) for i in range(count)]
    assert held == u * count // frames
    assert held * (frames // u) == count


@pytest.mark.parametrize(("frames", "u", "count"), [(16, 2, 12), (16, 2, 4), (8, 2, 0)])
def test_frames_that_tubelets_cannot_hold_are_refused(frames, u, count):
    with pytest.raises(TacitError, match="cannot be predicted"):
        predicted_frames(frames, u, count)


# Masks


@quick
@given(st.integers(2, 60), st.floats(0.0, 0.9))
def test_masks_in_time_are_their_twins(length, ratio):
    count = int(length * (1 - ratio))
    if not count:
        return
    future = random_keep(temporal_ranks(length)[None], ratio)
    assert future.mask[0].tolist() == [float(i >= count) for i in range(length)]
    assert future.keep[0].tolist() == list(range(count))
    middle = random_keep(center_ranks(length)[None], ratio)
    order = sorted(range(length), key=lambda i: (min(i, length - 1 - i), i))
    assert middle.keep[0].tolist() == order[:count]
    if count % 2 == 0:
        assert torch.equal(middle.mask, middle.mask.flip(1))


@quick
@given(st.integers(1, 5), st.integers(1, 50), st.floats(0.0, 0.99), seeds)
def test_tubes_are_their_twin(slots, places, ratio, seed):
    """Mutations: another mask in each slot; the kept count truncated instead of the hidden one."""
    noise = Draws(seed, 0, torch.arange(3)).uniform("noise", places)
    keep, mask, restore = tube_keep(noise, slots, ratio)
    for row, values in enumerate(noise.tolist()):
        hidden = set(sorted(range(places), key=lambda place: values[place])[: int(ratio * places)])
        assert mask[row].tolist() == [float(i % places in hidden) for i in range(slots * places)]
        seen = [i for i in range(slots * places) if i % places not in hidden]
        assert keep[row].tolist() == seen
        assert restore[row, keep[row]].tolist() == list(range(len(seen)))


def test_a_tube_mask_that_hides_everything_is_refused():
    assert tube_keep(torch.rand(1, 49, generator=torch.Generator().manual_seed(0)), 2, 0.9).keep.shape == (1, 10)
    for ratio in (1.0, -0.5):
        with pytest.raises(TacitError, match="mask ratio"):
            tube_keep(torch.zeros(1, 4), 2, ratio)


# Frames


@quick
@given(st.integers(1, 400), st.integers(1, 40), st.integers(1, 16), units)
def test_windows_are_their_twins(frames, stride, size, uniform):
    span = stride * size
    start = uniform * max(frames - span, 0)
    places = [start + (span - 1) * i / max(size - 1, 1) for i in range(size)]
    assert Stretch(size, stride)([frames], [uniform])[0].tolist() == [int(min(place, frames - 1)) for place in places]


def test_a_video_shorter_than_its_window_ends_in_repeats():
    assert Stretch(16, 1)([5], [0.0])[0].tolist() == [0, 1, 2, 3, *[4] * 12]


def crop_by_hand(frames: int, start: int, size: int, stride: int) -> list[int]:
    if frames <= size:
        return [i % frames for i in range(size)]
    if frames < (size - 1) * stride + 1:
        return [round(i * (frames - 1) / (size - 1)) for i in range(size)]
    return [start + i * stride for i in range(size)]


@quick
@given(st.integers(1, 60), st.integers(1, 12), st.integers(1, 4), st.integers(1, 5), units)
def test_crops_in_time_are_their_twins(frames, size, stride, crops, uniform):
    """Mutations: the last start left out; the middle rounded up; even sampling where a loop is due."""
    last = max(frames - (size - 1) * stride - 1, 0)
    assert last_start(frames, size, stride) == last
    drawn = Clip(size, stride, loops=True)([frames], [uniform])[0]
    assert drawn.tolist() == crop_by_hand(frames, int(uniform * (last + 1)), size, stride)
    starts = [round(c * last / (crops - 1)) for c in range(crops)] if crops > 1 else [last // 2]
    even = [EvenClip(size, stride, crops, place)([frames], [])[0].tolist() for place in range(crops)]
    assert even == [crop_by_hand(frames, start, size, stride) for start in starts]


def test_no_more_clips_stand_for_a_film_than_there_are_different_ones():
    assert [len(even_clips(there, 4, 2, 10)) for there in (3, 7, 9, 16, 400)] == [1, 1, 3, 10, 10]
    clips = even_clips(9, 4, 2, 10)
    assert [clip([9], [])[0].tolist() for clip in clips] == [[0, 2, 4, 6], [1, 3, 5, 7], [2, 4, 6, 8]]


def test_both_ends_of_a_video_are_reached():
    draws = Draws(0, 0, torch.arange(200)).uniform("start", 1).tolist()
    assert {Clip(10)([12], drawn)[0][0] for drawn in draws} == {0, 1, 2}
    clips = [clip([99], [])[0] for clip in even_clips(99, 8, 3, 10)]
    assert (clips[0][0], clips[-1][-1]) == (0, 98)


@quick
@given(st.integers(1, 6), st.integers(4, 11), st.integers(1, 4), st.floats(0, 1), seeds)
def test_clips_at_two_speeds_are_their_twin(batch, frames, speed, share, seed):
    """Mutations: ceil or round for the split; every s-th of only T_real source frames; both keys at one speed."""
    clips = normal(batch, 2, frames, 3, 2, seed=seed)
    order = torch.randperm(batch, generator=torch.Generator().manual_seed(seed))
    fast = fast_ones(order, share)
    slow = order.tolist()[: int(share * batch)]
    assert fast.tolist() == [sample not in slow for sample in range(batch)]
    speeds = Speeds(length := frames // speed, (speed,))
    shown = clips[:, :, list(speeds.shown)]
    played = speeds.play(shown, fast, speed)
    assert played.shape == (batch, 2, length, 3, 2)
    for sample in range(batch):
        for t in range(length):
            assert torch.equal(played[sample, :, t], clips[sample, :, t if sample in slow else t * speed])
    if speed == 1:
        assert torch.equal(played, speeds.play(shown, ~fast, speed))


# Losses


@quick
@given(st.integers(1, 5), st.integers(1, 7), st.sampled_from([0.07, 0.1, 1.0]), st.booleans(), seeds)
def test_appearance_is_its_twin(n, k, t, leaves_out, seed):
    """Mutations: the mean of the cross-entropies; the other positive among the negatives; the queue without temperature."""
    query, queue = unit(n, 6, seed=seed, name="q"), unit(k, 6, seed=seed, name="queue")
    keys = [unit(n, 6, seed=seed, name=name) for name in ("k", "o")]
    own = Draws(seed, 0, torch.arange(n)).chance("own", 0.3, k) if leaves_out else None
    expected = 0.0
    for key in keys:
        for i in range(n):
            hit = dot(query[i], key[i]) / t
            others = [dot(query[i], queue[j]) / t for j in range(k) if own is None or not own[i, j]]
            expected += (math.log(sum(math.exp(value) for value in [hit, *others])) - hit) / n
    near(appearance(query, keys, queue, t, own), expected)
    turn = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    turned = appearance(query[turn], [key[turn] for key in keys], queue, t, None if own is None else own[turn])
    near(turned, expected)


@quick
@given(st.integers(1, 6), st.floats(0, 4), st.sampled_from([0.07, 0.5]), seeds)
def test_relative_speed_is_its_twin(n, margin, t, seed):
    """Mutations: the margin before the temperature; a positive score that is pushed away."""
    query, same, other = (unit(n, 5, seed=seed, name=name) for name in ("q", "k", "o"))
    p, m = scores(query, same, t), scores(query, other, t)
    by_hand = [(dot(query[i], same[i]) / t, dot(query[i], other[i]) / t) for i in range(n)]
    near(relative_speed(p, m, margin), sum(max(0.0, margin - (a - b)) for a, b in by_hand) / n)
    near(speed_accuracy(p, m), sum(a > b for a, b in by_hand) / n)
    near(relative_speed(m, p, margin), sum(max(0.0, margin - (b - a)) for a, b in by_hand) / n)


def test_what_the_losses_say_by_chance_and_when_all_is_told_apart():
    p = torch.tensor([3.0, 5.0])
    assert relative_speed(p, p, 2.0) == 2.0
    assert relative_speed(p, p - 2.0, 2.0) == 0.0
    alike = torch.nn.functional.normalize(torch.ones(4, 3, dtype=torch.float64), dim=1)
    near(appearance(alike, [alike, alike], alike[:1].expand(9, -1), 0.07), appearance_chance(9))
    near(appearance_chance(9), 2 * math.log(10))


def test_no_gradient_reaches_keys_or_queue():
    query, key, queue = (unit(3, 4, name=name).requires_grad_() for name in ("q", "k", "queue"))
    loss = appearance(query, [key], queue, 0.1) + relative_speed(scores(query, key, 0.1), scores(query, key, 0.1) * 0.5, 9.0)
    loss.backward()
    assert query.grad is not None
    assert key.grad is None
    assert queue.grad is None


def test_a_queue_of_nothing_but_own_keys_leaves_a_finite_gradient():
    query = unit(2, 4, name="q").requires_grad_()
    loss = appearance(query, [query.detach()], unit(3, 4, name="queue"), 0.1, torch.ones(2, 3, dtype=torch.bool))
    loss.backward()
    near(loss.detach(), 0.0)
    assert query.grad.isfinite().all()


def test_activation_maps_are_their_twin():
    feature, other = normal(2, 3, 2, 2, 2, name="a"), normal(2, 3, 2, 2, 2, name="b")
    weight, theirs = normal(4, 3, name="w"), normal(4, 3, name="v")
    seen = activation_map(feature, weight, other, theirs)
    for sample in range(2):
        pooled = [float(other[sample, c].mean()) for c in range(3)]
        head = [sum(float(theirs[d, c]) * pooled[c] for c in range(3)) for d in range(4)]
        direction = [sum(head[d] * float(weight[d, c]) for d in range(4)) for c in range(3)]
        for t in range(2):
            for y in range(2):
                for x in range(2):
                    near(seen[sample, t, y, x], sum(direction[c] * float(feature[sample, c, t, y, x]) for c in range(3)))
    mine = feature.mean((2, 3, 4)) @ weight.T
    near(seen.mean((1, 2, 3)), (mine * (other.mean((2, 3, 4)) @ theirs.T)).sum(1))
