"""RSPNet: which clips are at which speed, who is told from whom, what moves when, what the queue holds."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from tiny_videos import FIRST, SPEC, auto, films, forward, seen, state, stepping, tiny

from tacit.core.draws import Draws
from tacit.core.errors import TacitError
from tacit.data.spec import Batch
from tacit.data.window import Clip, Some
from tacit.methods.method import Progress
from tacit.methods.rspnet import RSPNet
from tacit.nn.heads3d import last_map


def shaken(made: RSPNet) -> RSPNet:
    """With a copy that is no longer the query network, and none of its heads."""
    with torch.no_grad():
        for parameter in [*made.teacher.parameters(), *made.teacher_heads.parameters()]:
            parameter.mul_(0.7)
    return made


def copies(made: RSPNet) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Every weight of the copy with the one that it follows."""
    pairs = ((made.teacher, made.student), (made.teacher_heads, made.heads))
    return [(p, dict(own.named_parameters())[name]) for copy, own in pairs for name, p in copy.named_parameters()]


# Speeds


def test_query_and_key_are_at_one_speed_and_the_other_key_is_at_the_other():
    made = tiny("rspnet", speeds=(3,))
    views, draws = seen(made)
    fast = made.fast(draws)
    q, k, other = made.clips(views, fast, 3)
    assert {tuple(clip.shape) for clip in (q, k, other)} == {(8, 3, 4, 16, 16)}
    for row in range(8):
        own, opposite = (range(0, 12, 3), range(4)) if fast[row] else (range(4), range(0, 12, 3))
        own, opposite = ([made.speeds.shown.index(number) for number in numbers] for numbers in (own, opposite))
        assert torch.equal(q[row], views["clip_q"][row, :, own])
        assert torch.equal(k[row], views["clip_k"][row, :, own])
        assert torch.equal(other[row], views["clip_k"][row, :, opposite])


@pytest.mark.parametrize(("count", "share", "slow"), [(8, 0.5, 4), (5, 0.5, 2), (8, 0.3, 2), (8, 0.0, 0), (8, 1.0, 8)])
def test_a_share_of_the_batch_is_slow_by_draws_of_the_samples_own(count, share, slow):
    made = tiny("rspnet", slow=share)
    ids = torch.arange(count)
    fast = made.fast(Draws(0, 0, ids))
    assert int((~fast).sum()) == slow
    turn = ids.flip(0)
    assert torch.equal(made.fast(Draws(0, 0, turn)), fast[turn])


def test_the_two_clips_are_drawn_apart_and_hold_enough_frames():
    made = tiny("rspnet", speeds=(2, 3), stride=2)
    views = made.views()
    shown = (0, 1, 2, 3, 4, 6, 9)  # of one, two and three frames at a time; nothing else is read
    assert {view.window for view in views.values()} == {Some(Clip(12, 2, loops=True), shown)}
    (places,) = views["clip_q"].window([40], [0.5])
    assert (places - places[0]).tolist() == [2 * number for number in shown]
    made = tiny("rspnet")
    views, _ = seen(made)
    assert views["clip_q"].shape == views["clip_k"].shape == (8, 3, 6, 16, 16)
    assert not torch.equal(views["clip_q"], views["clip_k"])


def test_of_several_speeds_each_step_takes_one_for_all():
    made = tiny("rspnet", speeds=(2, 3))
    drawn = [
        made.speed(Draws(0, epoch, torch.arange(n)), Progress(step, 40, 5)) for step in range(40) for epoch, n in ((0, 3),)
    ]
    assert set(drawn) == {2, 3}
    assert drawn == [made.speed(Draws(0, 7, torch.arange(8)), Progress(step, 40, 5)) for step in range(40)]
    assert torch.isfinite(forward(made).total)


def test_without_a_change_of_speed_the_loss_is_the_margin():
    made = tiny("rspnet", norm="group")
    made.speed = lambda draws, progress: 1
    assert float(forward(made).parts["speed"]) == pytest.approx(2.0, rel=1e-6)


# Losses


def test_terms_and_chance_are_those_of_both_tasks():
    made = tiny("rspnet", appearance_weight=0.5, speed_weight=3.0)
    terms = forward(made)
    parts = terms.parts
    assert float(terms.total.detach()) == pytest.approx(0.5 * float(parts["appearance"]) + 3 * float(parts["speed"]))
    assert terms.chance == pytest.approx(0.5 * 2 * math.log(33) + 3 * 2.0)
    assert 0 <= float(terms.watch["speed_accuracy"]) <= 1
    assert float(terms.watch["real_keys"]) == 0


def test_both_keys_are_positives_of_losses_of_their_own():
    """Mutations: a mean of the two; the other speed as a negative."""
    made = shaken(tiny("rspnet", norm="group")).double()
    views, draws = seen(made)
    q, k, other = made.clips(views, made.fast(draws), 2)
    query = F.normalize(made.student_says(q)[0], dim=1)
    expected = 0.0
    for clips in (k, other):
        key = F.normalize(made.teacher_says(clips)[0], dim=1)
        logits = torch.cat([(query * key).sum(1, keepdim=True), query @ made.queue.keys.T], dim=1) / 0.07
        expected += F.cross_entropy(logits, torch.zeros(8, dtype=torch.long))
    terms = made(views, draws, FIRST)
    torch.testing.assert_close(terms.parts["appearance"], expected.detach())
    alone = tiny("rspnet", norm="group", positives="same").double()
    alone.load_state_dict(made.state_dict())
    single = alone(views, draws, FIRST)
    assert float(single.parts["appearance"]) < float(terms.parts["appearance"])
    assert single.chance == pytest.approx(math.log(33) + 2.0)


def test_speed_is_told_by_a_head_of_its_own_at_a_margin_of_scaled_scores():
    """Mutations: one shared head; the margin before the temperature; negatives of the queue."""
    made = shaken(tiny("rspnet", norm="group", temperature=0.5, margin=0.3)).double()
    views, draws = seen(made)
    q, k, other = made.clips(views, made.fast(draws), 2)
    query, same, unlike = (
        F.normalize(z[1], dim=1) for z in (made.student_says(q), made.teacher_says(k), made.teacher_says(other))
    )
    gap = ((query * same).sum(1) - (query * unlike).sum(1)) / 0.5
    expected = (0.3 - gap).clamp(min=0).mean()
    torch.testing.assert_close(made(views, draws, FIRST).parts["speed"], expected.detach())
    torch.testing.assert_close(made(views, draws, FIRST).watch["speed_accuracy"], (gap > 0).float().mean())
    made.queue.keys.zero_()
    torch.testing.assert_close(made(views, draws, FIRST).parts["speed"], expected.detach())


def test_a_gap_beyond_the_margin_costs_nothing():
    made = tiny("rspnet")
    q, k, other = torch.eye(12)[:4], torch.eye(12)[:4], -torch.eye(12)[:4]
    assert float(made.told(q, k, other, torch.ones(4, dtype=torch.bool))[0]) == 0
    assert float(made.told(q, other, k, torch.ones(4, dtype=torch.bool))[0]) == pytest.approx(2 + 2 / 0.07)
    assert torch.equal(made.told(9 * q, k, other, torch.ones(4, dtype=torch.bool))[1], torch.tensor(1.0))


def test_absolute_speed_is_said_of_the_query_alone():
    made = tiny("rspnet", speed_task="absolute")
    assert made.heads["speed"][2].out_features == 1
    logit = torch.tensor([[2.0], [-1.0]])
    loss, right, chance = made.told(logit, logit, logit, torch.tensor([True, True]))
    assert float(loss) == pytest.approx((math.log(1 + math.exp(-2)) + math.log(1 + math.exp(1))) / 2)
    assert (float(right), chance) == (0.5, math.log(2))
    terms = forward(made)
    terms.total.backward()
    assert made.heads["speed"][2].weight.grad.abs().sum() > 0
    assert len(made.eval().pictures(*seen(made))) == 3


def test_keys_of_the_films_own_are_left_out_where_asked_for():
    plain, spared = (tiny("rspnet", norm="group", skip_own=skip) for skip in (False, True))
    for made in (plain, spared):
        made.queue.owners[:8] = torch.arange(8)
        made.queue.keys[:8] = F.normalize(
            made.teacher_says(made.clips(seen(made)[0], made.fast(seen(made)[1]), 2)[1])[0], dim=1
        )
    assert float(forward(spared).parts["appearance"]) < float(forward(plain).parts["appearance"]) - 0.1


# What moves, and when


def test_no_gradient_reaches_the_copy_or_the_queue():
    made = shaken(tiny("rspnet"))
    forward(made).total.backward()
    assert all(parameter.grad is None for parameter in [*made.teacher.parameters(), *made.teacher_heads.parameters()])
    assert all(parameter.grad is not None for parameter in [*made.student.parameters(), *made.heads.parameters()])
    assert not made.queue.keys.requires_grad
    assert not list(made.queue.parameters())
    assert made.encoder is made.student


def test_the_copy_follows_first_by_the_weights_before_the_step():
    """Mutation: after the optimiser."""
    made = shaken(tiny("rspnet", momentum=0.9))
    expected = [0.9 * copy.detach() + 0.1 * own.detach() for copy, own in copies(made)]
    running = state(made.teacher)
    made.before_step(FIRST)
    for (copy, _), wanted in zip(copies(made), expected, strict=True):
        torch.testing.assert_close(copy.detach(), wanted)
    assert all(torch.equal(running[name], value) for name, value in made.teacher.named_buffers())  # statistics are its own
    made = shaken(tiny("rspnet", momentum=0.9))
    stepping(made)(films(8), FIRST)
    for (copy, own), wanted in zip(copies(made), expected, strict=True):
        torch.testing.assert_close(copy.detach(), wanted)
        assert not torch.equal(copy.detach(), own.detach())


def test_the_other_speeds_keys_join_the_queue_after_the_loss_in_the_order_of_the_index():
    """Mutations: the keys of the query's speed, or the queries, join it; the pointer is not wrapped."""
    made = shaken(tiny("rspnet", norm="group", queue=20))
    batch, turn = films(8), torch.tensor([3, 7, 0, 2, 6, 1, 5, 4])
    before = state(made.queue)
    views, draws = seen(made, batch)
    other = F.normalize(made.teacher_says(made.clips(views, made.fast(draws), 2)[2])[0], dim=1)
    shuffled = Batch(batch.ids[turn], batch.data[turn], batch.sizes[turn])
    for start, once in ((0, batch), (8, shuffled), (16, batch)):
        made(*seen(made, once), FIRST)
        assert torch.equal(made.queue.keys, before["keys"])  # not before the step is done
        made.after_step(FIRST)
        places = (start + torch.arange(8)) % 20
        torch.testing.assert_close(made.queue.keys[places], other.detach(), rtol=1e-4, atol=1e-5)
        assert made.queue.owners[places].tolist() == list(range(8))
        rest = torch.ones(20, dtype=torch.bool).index_fill(0, places, False)
        assert torch.equal(made.queue.keys[rest], before["keys"][rest])
        before = state(made.queue)
    assert int(made.queue.pointer) == 4
    torch.testing.assert_close(made.queue.keys.norm(dim=1), torch.ones(20))


def test_passes_of_one_step_fill_the_queue_like_one_pass_and_looking_fills_nothing():
    made, batch = tiny("rspnet"), films(8)
    for part in (batch.rows(4, 8), batch.rows(0, 4)):
        made(*seen(made, part), FIRST)
    made.after_step(FIRST)
    assert made.queue.owners[:8].tolist() == list(range(8))
    made.eval()
    forward(made)
    made.after_step(FIRST)
    assert int(made.queue.pushed) == 8


def test_the_queue_and_the_copy_are_part_of_the_state():
    made = tiny("rspnet")
    stepping(made)(films(8), FIRST)
    again = tiny("rspnet")
    again.load_state_dict(state(made))
    assert {"queue.keys", "queue.owners", "queue.pushed"} <= set(state(made))
    torch.testing.assert_close(forward(made).total, forward(again).total)


def test_the_order_of_the_batch_does_not_matter():
    turn, found = torch.tensor([3, 7, 0, 2, 6, 1, 5, 4]), []
    for order in (torch.arange(8), turn):
        made, batch = tiny("rspnet", splits=2).double(), films(8)
        terms = forward(made, Batch(batch.ids[order], batch.data[order], batch.sizes[order]))
        terms.total.backward()
        made.after_step(FIRST)
        found.append((terms.total.detach(), [p.grad for p in made.student.parameters()], state(made)))
    torch.testing.assert_close(*found, rtol=1e-8, atol=1e-10)


# Batch-norm


def test_keys_are_made_in_two_passes_the_other_speed_first_and_in_shuffled_parts():
    made, calls = tiny("rspnet", splits=2), []
    made.teacher.register_forward_hook(lambda _, args, out: calls.append(args[0]))
    views, draws = seen(made)
    made(views, draws, FIRST)
    assert [len(x) for x in calls] == [4] * 4
    _, k, other = made.clips(views, made.fast(draws), 2)

    def rows_of(parts: list[torch.Tensor], clips: torch.Tensor) -> list[int]:
        return [next(row for row in range(8) if torch.equal(clips[row], clip)) for part in parts for clip in part]

    first, second = rows_of(calls[:2], other), rows_of(calls[2:], k)
    assert sorted(first) == sorted(second) == list(range(8))
    assert first != second
    assert list(range(8)) not in (first, second)


def test_shuffling_puts_every_key_back_in_its_place():
    whole, parts = shaken(tiny("rspnet", norm="group")), shaken(tiny("rspnet", norm="group", splits=4))
    torch.testing.assert_close(forward(whole).total, forward(parts).total)
    assert not any("running_mean" in name for name in state(whole))
    assert any("running_mean" in name for name in state(tiny("rspnet")))


# Heads


@pytest.mark.parametrize("head", ["linear", "mlp", "conv", "convbn"])
def test_every_head_trains_and_those_on_means_are_what_the_verdict_sees(head):
    made = tiny("rspnet", head=head)
    forward(made).total.backward()
    assert made.heads["appearance"] is not made.heads["speed"]
    clips = seen(made)[0]["clip_q"][:, :, :4]
    made.eval()
    if head in ("linear", "mlp"):
        torch.testing.assert_close(made.projector(made.student(clips).pooled), made.student_says(clips)[0])
    else:
        assert made.projector is None


def test_a_map_has_the_encoders_cells():
    made, clips = tiny("rspnet", size=32), films(2).data[:, :, :4].float()
    made.eval()
    found = last_map(made.student, clips)
    assert found.shape[2:] == made.student.grid(clips.shape[2:])
    torch.testing.assert_close(found.mean((2, 3, 4)), made.student(clips).pooled)


def test_transformers_for_clips_will_do():
    made = tiny("rspnet", "video-vit-micro/2x8")
    assert torch.isfinite(forward(made).total)


# Recipes


def test_the_papers_view_options_and_training():
    o, t = RSPNet.Options(), RSPNet.paper_training
    look = RSPNet(o, tiny("rspnet").student, SPEC, 16).views()["clip_q"].look
    j = look.jitter
    assert (look.area, look.aspect, look.flip, look.grey, look.interpolation) == (
        (0.4, 1.0),
        (3 / 4, 4 / 3),
        0.5,
        0.2,
        "bilinear",
    )
    assert (j.brightness, j.contrast, j.saturation, j.hue, j.probability) == (0.4, 0.4, 0.4, 0.4, 1.0)
    assert (look.normalise, o.frames, o.stride, o.speeds, o.slow) == ("imagenet", 16, 1, (2,), 0.5)
    assert (o.temperature, o.margin, o.queue, o.momentum, o.head, o.head_out) == (0.07, 2.0, 16384, 0.999, "linear", 128)
    assert (o.appearance_weight, o.speed_weight, o.skip_own, o.positives) == (1.0, 1.0, False, "both")
    assert (t["optimiser"], t["lr_per_256"], t["momentum"], t["weight_decay"]) == ("sgd", 0.4, 0.9, 1e-4)
    for column in ({}, *RSPNet.paper_columns.values()):
        card = t | column
        assert card["lr_end"] == pytest.approx(card["lr_per_256"] * card["batch"] / 256 / 1000)


def test_everything_decays():
    made = tiny("rspnet")
    groups = stepping(made, weight_decay=1e-4).optimiser.param_groups
    decayed = {id(p) for group in groups if group["decays"] for p in group["params"]}
    assert decayed == {id(p) for p in made.parameters() if p.requires_grad}


def test_auto_scales_down():
    chosen = auto("rspnet")
    assert (chosen["frames"], chosen["stride"], chosen["area"], chosen["temperature"]) == (8, 1, 0.8, 0.1)
    assert chosen["margin"] * chosen["temperature"] == pytest.approx(0.14)
    assert (chosen["queue"], chosen["skip_own"], chosen["splits"]) == (96, True, 2)
    large = auto("rspnet", samples=100_000, batch=64)
    assert (large["queue"], large["skip_own"], large["splits"]) == (16384, False, 4)
    # However few films there are, keys are encoded in equal parts.
    assert [auto("rspnet", batch=batch)["splits"] for batch in (7, 8, 9, 65, 66, 68)] == [1, 2, 3, 1, 2, 4]
    assert auto("rspnet", samples=40)["queue"] == 32
    assert [auto("rspnet", steps=n)["momentum"] for n in (50, 1000, 10**6)] == pytest.approx([0.9, 0.99, 0.999])
    assert auto("rspnet", batch=128)["train.lr"] == pytest.approx(4e-3)
    assert (auto("rspnet", mirrored=False)["flip"], chosen["flip"]) == (0.0, 0.5)
    assert auto("rspnet", spec=replace(SPEC, channels=1))["grey"] == 0
    assert auto("rspnet", spec=replace(SPEC, size=(10, 64, 64)))["frames"] == 5
    assert auto("rspnet", spec=replace(SPEC, size=(300, 64, 64)))["stride"] == 4


@pytest.mark.parametrize(
    ("encoder", "options", "message"),
    [
        ("", {"speeds": (1,)}, "at least twice as fast"),
        ("", {"speeds": (7,)}, "cannot be played 7 times as fast"),
        ("", {"queue": 4}, "do not fit into queue=4"),
        ("", {"splits": 3}, "not made of 3 equal parts"),
        ("c3d", {"size": 8}, "too small; raise size or frames"),
        ("resnet-mini", {}, "is for images"),
    ],
)
def test_what_cannot_be_compared_is_refused(encoder, options, message):
    with pytest.raises(TacitError, match=message):
        tiny("rspnet", encoder, **options)


# Pictures


def test_pictures_are_strips_at_two_speeds_scores_and_where_they_come_from():
    made = tiny("rspnet").eval()
    views, draws = seen(made)
    slow, fast, scores, where = made.pictures(views, draws).values()
    assert slow.shape == fast.shape == (3, 3 * 17, 4 * 17)
    assert scores.shape == (1, 2 * 49, 160)
    assert where.shape == (3, 3 * 17, 4 * 17)
    assert len(tiny("rspnet", head="mlp").eval().pictures(views, draws)) == 3
    for picture in (slow, fast, scores, where):
        assert 0 <= float(picture.detach().min()) < float(picture.detach().max()) <= 1
