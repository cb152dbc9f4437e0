"""DINO: who is taught when, what moves when, what is frozen, what is dropped."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_methods import FIRST, SPEC, auto, forward, pictures, seen, state, stepping, tiny

from tacit.core.draws import Draws
from tacit.core.errors import TacitError
from tacit.methods.dino import DINO
from tacit.methods.method import Progress
from tacit.methods.pictures import heaviest
from tacit.objectives.distil import cross_view, sharpen
from tacit.views.image import Blur, Jitter

LATER = Progress(7, 10, 5)
"""In the second epoch."""


def shaken(made: DINO) -> DINO:
    """With a teacher that is no longer the student."""
    with torch.no_grad():
        for parameter in [*made.teacher.parameters(), *made.teacher_head.parameters()]:
            parameter.mul_(0.5)
    return made


def changed(module: torch.nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, value in state(module).items() if not torch.equal(value, before[name])}


def test_the_teacher_starts_as_the_student_and_is_what_is_kept():
    made = tiny("dino")
    for copy, original in ((made.teacher, made.student), (made.teacher_head, made.head)):
        assert all(torch.equal(value, original.state_dict()[name]) for name, value in copy.state_dict().items())
    assert made.encoder is made.teacher
    assert made.projector is made.teacher_head
    assert made.teacher.config == made.student.config


def test_no_gradient_reaches_teacher_centre_or_gain():
    made = shaken(tiny("dino"))
    forward(made).total.backward()
    assert all(parameter.grad is None for parameter in [*made.teacher.parameters(), *made.teacher_head.parameters()])
    assert made.center.mean.grad is None
    assert made.head.last_layer.weight_g.grad is None
    assert made.head.last_layer.weight_v.grad is not None


def test_the_teacher_sees_large_crops_only_and_the_trunk_is_called_once_for_each_size():
    made, calls = tiny("dino"), []
    for name in ("student", "teacher", "head", "teacher_head"):
        getattr(made, name).register_forward_hook(lambda _, args, out, name=name: calls.append((name, len(args[0]))))
    forward(made, 6)
    assert calls == [("student", 12), ("student", 12), ("head", 24), ("teacher", 12), ("teacher_head", 12)]


def test_one_call_of_the_head_normalises_over_all_crops():
    """Mutation: the head applied per resolution."""
    made = tiny("dino", head_norm=True)
    views, draws = seen(made)
    crops = [torch.cat([views["global1"], views["global2"]]), torch.cat([views["local1"], views["local2"]])]
    hidden = made.head.mlp[0](torch.cat([made.student(crop).pooled for crop in crops]))
    made(views, draws, FIRST)
    torch.testing.assert_close(made.head.mlp[1].running_mean, 0.1 * hidden.mean(0))


def test_the_loss_is_that_of_the_centre_before_the_step():
    """Mutation: the centre updated before it is used."""
    made = shaken(tiny("dino"))
    views, draws = seen(made)
    made.center.mean[:] = torch.linspace(-0.05, 0.05, 24)
    logits = made.says(torch.cat([views["global1"], views["global2"]]), [views["local1"], views["local2"]], draws)
    teacher = made.teacher_head(made.teacher(torch.cat([views["global1"], views["global2"]])).pooled)
    expected = cross_view(logits, sharpen(teacher, made.center.mean, 0.04), 0.1, 4)
    assert torch.equal(made(views, draws, FIRST).total, expected)


def test_the_centre_follows_raw_logits_once_a_step_of_however_many_passes():
    """Mutations: the centre of softmax outputs; the sum of rows in place of their mean."""
    made, batch = shaken(tiny("dino", batch=16, centre_momentum=0.8)), pictures(16)
    step = stepping(made, batch=16, lr=0.0)
    views, _ = step.see(batch, 0)
    with torch.no_grad():
        teacher = made.teacher_head(made.teacher(torch.cat([views["global1"], views["global2"]])).pooled)
    step(batch, FIRST)
    torch.testing.assert_close(made.center.mean, 0.2 * teacher.mean(0, keepdim=True))
    halves = shaken(tiny("dino", batch=16, centre_momentum=0.8))
    stepping(halves, batch=16, lr=0.0, accumulate=2)(batch, FIRST)
    torch.testing.assert_close(halves.center.mean, made.center.mean)


def test_the_centre_rests_where_nothing_is_trained_or_it_is_switched_off():
    made = tiny("dino").eval()
    forward(made)
    made.after_step(FIRST)
    assert not made.center.mean.any()
    made = tiny("dino", centre=False)
    stepping(made)(pictures(8), FIRST)
    assert not made.center.mean.any()


def test_the_teacher_follows_after_the_optimiser():
    """Mutation: the teacher moves before the step."""
    made = shaken(tiny("dino", momentum=0.7, freeze_last=0))
    before = state(made)
    stepping(made, lr=0.5)(pictures(8), FIRST)
    for name, parameter in made.student.named_parameters():
        assert not torch.equal(parameter, before[f"student.{name}"])
        expected = 0.7 * before[f"teacher.{name}"] + 0.3 * parameter.detach()
        torch.testing.assert_close(dict(made.teacher.named_parameters())[name].detach(), expected)
    for name, parameter in made.head.named_parameters():
        expected = 0.7 * before[f"teacher_head.{name}"] + 0.3 * parameter.detach()
        torch.testing.assert_close(dict(made.teacher_head.named_parameters())[name].detach(), expected)


def test_momentum_rises_to_one_or_stays():
    def left(progress: Progress, **options: float) -> float:
        made = shaken(tiny("dino", **options))
        made.after_step(progress)
        return 1 - float((made.teacher.norm.weight.detach() - 0.5).mean()) / 0.5  # 0.5 before, 1 in the student

    assert left(Progress(0, 100, 10), momentum=0.9) == pytest.approx(0.9, abs=1e-5)
    assert left(Progress(50, 100, 10), momentum=0.9) == pytest.approx(0.95, abs=1e-5)
    assert left(Progress(50, 100, 10), momentum=0.9, momentum_rises=False) == pytest.approx(0.9, abs=1e-5)
    assert left(Progress(50, 100, 10), momentum=0.0, momentum_rises=False) == pytest.approx(0.0, abs=1e-5)


def test_a_momentum_of_one_leaves_the_teacher_bit_by_bit():
    made = shaken(tiny("dino", momentum=1.0))
    before = state(made.teacher)
    stepping(made)(pictures(8), FIRST)
    assert not changed(made.teacher, before)


@pytest.mark.parametrize("fixed", [True, False])
def test_prototypes_are_frozen_at_first(fixed):
    """Neither decay nor the optimiser's momentum moves them; afterwards both do, gains only where they are free."""
    made = tiny("dino", fixed_gain=fixed, freeze_last=1.0)
    step, before = stepping(made, optimiser="adamw", weight_decay=0.5, momentum=0.9), state(made.head)
    step(pictures(8), FIRST)
    step(pictures(8, 8), Progress(4, 10, 5))
    assert changed(made.head, before) == {f"mlp.{i}.{kind}" for i in (0, 2, 4) for kind in ("weight", "bias")}
    step(pictures(8), LATER)
    free = {"last_layer.weight_v"} | (set() if fixed else {"last_layer.weight_g"})
    assert {name for name in changed(made.head, before) if name.startswith("last")} == free


def test_each_gradient_is_clipped_by_itself():
    """Mutation: the global norm."""
    made = tiny("dino", freeze_last=0)
    step, lengths = stepping(made, clip=1e-3, clip_per_tensor=True), []
    made.register_forward_pre_hook(lambda module, args: None)
    step.optimiser.register_step_pre_hook(
        lambda optimiser, args, kwargs: lengths.extend(
            p.grad.norm().item() for g in optimiser.param_groups for p in g["params"]
        )
    )
    step(pictures(8), FIRST)
    assert max(lengths) == pytest.approx(1e-3, rel=1e-2)
    assert math.hypot(*lengths) > 3e-3


def test_what_decays():
    """Class token, positions and prototypes do; norms and biases do not."""
    made = tiny("dino", fixed_gain=False)
    of = {id(p): name for name, p in made.named_parameters()}
    groups = stepping(made, optimiser="adamw", weight_decay=0.04).optimiser.param_groups
    decayed = {of[id(p)] for group in groups if group["decays"] for p in group["params"]}
    assert {"student.cls_token", "student.pos_embed", "head.last_layer.weight_v", "head.last_layer.weight_g"} <= decayed
    assert decayed == {name for name, p in made.named_parameters() if p.requires_grad and p.ndim > 1}


def test_branches_of_the_student_are_dropped_and_never_the_teachers():
    made, said = tiny("dino", drop_path=0.9), []
    made.teacher_head.register_forward_hook(lambda _, args, out: said.append(out))
    views, draws = seen(made)
    other = Draws(1, 0, draws.samples)
    first, again, differently = (made(views, d, FIRST).total for d in (draws, draws, other))
    assert torch.equal(first, again)
    assert not torch.equal(first, differently)
    assert torch.equal(said[0], said[2])
    plain = tiny("dino")
    assert torch.equal(plain(views, draws, FIRST).total, plain(views, other, FIRST).total)


def test_small_crops_may_come_in_any_order():
    made = tiny("dino").double()
    views, draws = seen(made)
    views = {name: view.double() for name, view in views.items()}
    turned = {**views, "local1": views["local2"], "local2": views["local1"]}
    torch.testing.assert_close(made(turned, draws, FIRST).total, made(views, draws, FIRST).total, rtol=1e-12, atol=0)


def test_two_crops_make_two_terms():
    made = shaken(tiny("dino", local_crops=0))
    views, draws = seen(made)
    assert list(views) == ["global1", "global2"]
    with torch.no_grad():
        student = [(made.head(made.student(view).pooled) / 0.1).log_softmax(-1) for view in views.values()]
        teacher = [(made.teacher_head(made.teacher(view).pooled) / 0.04).softmax(-1) for view in views.values()]
    terms = [-(p * q).sum(-1).mean() for p, q in ((teacher[0], student[1]), (teacher[1], student[0]))]
    torch.testing.assert_close(made(views, draws, FIRST).total.detach(), sum(terms) / 2)


def test_a_student_without_opinions_is_at_chance_and_none_is_below_the_teachers_entropy():
    made = tiny("dino")
    for parameter in made.head.mlp[-1].parameters():
        parameter.data.zero_()
    terms = forward(made)
    assert terms.total.item() == pytest.approx(terms.chance) == pytest.approx(math.log(24))
    terms = forward(shaken(tiny("dino")))
    assert terms.watch["divergence"] > 0
    assert 0 < terms.watch["teacher_entropy"] < math.log(24)


def test_the_teachers_temperature_is_that_of_the_epoch():
    made = tiny("dino", teacher_temperature=0.07, teacher_temperature_start=0.04, temperature_epochs=4)
    seen_at = [forward(made, 2, Progress(step, 60, 10)).watch["teacher_temperature"].item() for step in (0, 9, 10, 25, 30, 59)]
    assert seen_at == pytest.approx([0.04, 0.04, 0.05, 0.06, 0.07, 0.07])


def test_crops_need_not_be_square():
    made = tiny("dino")
    views = {f"global{i}": torch.ones(2, 3, 16, 24) * i for i in (1, 2)} | {"local1": torch.ones(2, 3, 12, 8)}
    terms = made(views, Draws(0, 0, torch.arange(2)), FIRST)
    terms.total.backward()
    assert torch.isfinite(terms.total)
    assert torch.isfinite(made.student.pos_embed.grad).all()


def test_transformers_are_built_as_published():
    options = DINO.Options()
    expected = {"positions": "learned", "init": "dino", "drop_path": 0.1}
    assert DINO.encoder_options(options, "vit-small/16") == expected
    assert DINO.encoder_options(options, "resnet50") == {}
    made = tiny("dino", drop_path=0.3)
    assert [block.drop_path for block in made.student.blocks] == pytest.approx([0.0, 0.1, 0.2, 0.3])


def test_the_papers_views():
    views = DINO(DINO.Options(prototypes=8, head_width=8), tiny("dino").student, SPEC, 224).views()
    assert list(views) == ["global1", "global2", *(f"local{i + 1}" for i in range(8))]
    for name, view in views.items():
        small = name.startswith("local")
        assert (view.size, view.area) == ((96, (0.05, 0.4)) if small else (224, (0.4, 1.0)))
        assert view.jitter == Jitter(0.4, 0.4, 0.2, 0.1, probability=0.8)
        assert (view.flip, view.grey, view.normalise, view.solarise_threshold) == (0.5, 0.2, "imagenet", 0.5)
        chance = 0.5 if small else {"global1": 1.0, "global2": 0.1}[name]
        assert view.blur == Blur(0.1, 2.0, chance)
        assert view.solarise == (0.2 if name == "global2" else 0.0)


def test_the_papers_options_and_training():
    o, t = DINO.Options(), DINO.paper_training
    assert (o.prototypes, o.head_width, o.bottleneck, o.fixed_gain, o.head_norm) == (65536, 2048, 256, True, False)
    assert (o.student_temperature, o.teacher_temperature, o.teacher_temperature_start) == (0.1, 0.04, 0.04)
    assert (o.centre_momentum, o.momentum, o.freeze_last, o.drop_path) == (0.9, 0.996, 1.0, 0.1)
    assert t == {
        "encoder": "vit-small/16", "size": 224, "batch": 1024, "epochs": 100, "warmup_epochs": 10, "optimiser": "adamw",
        "schedule": "cosine-inclusive", "lr_per_256": 5e-4, "lr_end": 1e-6, "weight_decay": 0.04, "weight_decay_end": 0.4,
        "clip": 3.0, "clip_per_tensor": True,
    }  # fmt: skip


def test_auto_follows_samples_steps_and_sizes():
    counts = {900: 512, 4000: 1024, 20_000: 4096, 50_000: 4096}
    assert {n: auto("dino", samples=n)["prototypes"] for n in counts} == counts
    assert all(auto("dino", samples=n)["prototypes"] <= max(n, 2) for n in (8, 33, 700, 10**6))
    assert [auto("dino", steps=s)["momentum"] for s in (100, 2000, 10**6)] == pytest.approx([0.98, 0.99, 0.9995])
    assert [auto("dino", batch=b)["centre_momentum"] for b in (16, 32, 64, 256)] == pytest.approx([0.975, 0.95, 0.9, 0.9])
    short, long = auto("dino", steps=2000), auto("dino", steps=20_000, samples=20_000, batch=100)
    assert (short["teacher_temperature"], short["temperature_epochs"], short["local_crops"]) == (0.04, 0, 2)
    assert (long["teacher_temperature"], long["temperature_epochs"], long["local_crops"]) == (0.07, 30, 4)
    assert short["freeze_last"] == pytest.approx(1.0)
    assert auto("dino", steps=310)["freeze_last"] == pytest.approx(0.3)
    assert (short["local_size"], short["local_area"]) == (16, (0.1, 0.4))
    assert [auto("dino", size=size, encoder=f"vit-mini/{p}")["local_size"] for size, p in ((28, 4), (96, 8), (28, 7))] == [
        12,
        48,
        14,
    ]
    assert auto("dino", encoder="nets/own.py:Net")["local_size"] == 16
    assert [auto("dino", encoder=name)["drop_path"] for name in ("resnet18", "vit-mini/4", "vit-small/4")] == [0.0, 0.0, 0.1]
    assert (short["train.warmup"], short["train.lr_end"], short["train.weight_decay"], short["train.clip"]) == (
        200,
        1e-6,
        0.04,
        3.0,
    )
    assert short["train.lr"] == pytest.approx(2e-3 * math.sqrt(0.5))
    assert [auto("dino", steps=s)["local_crops"] for s in (1000, 1500, 5000)] == [0, 2, 4]
    assert (short["head_norm"], long["head_norm"]) == (True, False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"local_size": 20}, "local_size=20 is larger than the view of 16 pixels"),
        ({"encoder": "vit-micro/16", "local_size": 8}, "local_size=8 is smaller than a patch"),
        ({"local_area": (0.5, 0.1)}, "two shares with 0 < low <= high <= 1"),
    ],
)
def test_impossible_crops_are_refused(options, message):
    with pytest.raises(TacitError, match=message):
        tiny("dino", **options)


def test_the_heaviest_places_hold_the_share():
    maps = torch.tensor([[0.5, 0.3], [0.15, 0.05]])
    assert heaviest(maps, 0.6).tolist() == [[1, 1], [0, 0]]
    assert heaviest(maps, 0.5).tolist() == [[1, 0], [0, 0]]
    assert heaviest(maps.flip(0), 0.96).tolist() == [[1, 1], [1, 1]]
