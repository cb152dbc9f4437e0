"""MoCo v3: the momentum copy, what is frozen, what decays."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_methods import FIRST, SPEC, auto, forward, pictures, seen, state, stepping, tiny

from tacit.methods.method import Progress
from tacit.methods.moco_v3 import MoCoV3
from tacit.views.image import Blur, Jitter

RESNET = {"projector_layers": 2, "predictor_norm": False}


def shaken(made: MoCoV3) -> MoCoV3:
    """With a copy that is no longer the student."""
    with torch.no_grad():
        for parameter in [*made.teacher.parameters(), *made.teacher_head.parameters()]:
            parameter.mul_(0.5)
    return made


def followed(before: dict[str, torch.Tensor], student: torch.nn.Module, momentum: float) -> dict[str, torch.Tensor]:
    return {name: momentum * before[name] + (1 - momentum) * p.detach() for name, p in student.named_parameters()}


def test_the_copy_starts_as_encoder_and_projector_and_has_no_predictor():
    made = tiny("moco-v3")
    for copy, original in ((made.teacher, made.student), (made.teacher_head, made.head)):
        assert all(torch.equal(value, original.state_dict()[name]) for name, value in copy.state_dict().items())
    assert not any("predictor" in name for name, p in made.named_parameters() if not p.requires_grad)
    assert made.encoder is made.student


def test_the_copy_moves_before_it_makes_keys():
    """Mutation: the update after computing k."""
    made, keys = shaken(tiny("moco-v3", momentum=0.7)), []
    expected = followed(state(made.teacher), made.student, 0.7)
    made.teacher.register_forward_pre_hook(lambda module, args: keys.append(state(module)))
    stepping(made)(pictures(8), FIRST)
    assert len(keys) == 2
    for weights in keys:
        for name, value in expected.items():
            torch.testing.assert_close(weights[name], value)


def test_the_copy_moves_once_a_step_of_however_many_passes():
    made = shaken(tiny("moco-v3", batch=16, momentum=0.7))
    step = stepping(made, accumulate=2, batch=16, lr=0.0)
    expected = followed(state(made.teacher), made.student, 0.7)
    step(pictures(16), FIRST)
    for name, parameter in made.teacher.named_parameters():
        torch.testing.assert_close(parameter.detach(), expected[name])


def test_a_pass_alone_moves_no_weight():
    made = shaken(tiny("moco-v3"))
    before = state(made)
    forward(made)
    assert all(torch.equal(value, before[name]) for name, value in made.named_parameters())


def test_momentum_rises_to_one_or_stays():
    def left(progress: Progress, **options: float) -> float:
        made = shaken(tiny("moco-v3", **options))
        before = state(made.teacher)["norm.weight"]  # 0.5 here, 1 in the student
        made.before_step(progress)
        moved = (made.teacher.norm.weight.detach() - before).mean()
        return 1 - float(moved) / 0.5

    assert left(Progress(0, 100, 10), momentum=0.9) == pytest.approx(0.9, abs=1e-5)
    assert left(Progress(50, 100, 10), momentum=0.9) == pytest.approx(0.95, abs=1e-5)
    assert left(Progress(50, 100, 10), momentum=0.9, momentum_rises=False) == pytest.approx(0.9, abs=1e-5)
    assert left(Progress(50, 100, 10), momentum=0.0, momentum_rises=False) == pytest.approx(0.0, abs=1e-5)


def test_a_momentum_of_one_leaves_the_copy_bit_by_bit():
    made = shaken(tiny("moco-v3", momentum=1.0))
    before = state(made)
    stepping(made)(pictures(16), FIRST)
    for name, parameter in [
        *made.teacher.named_parameters(prefix="teacher"),
        *made.teacher_head.named_parameters("teacher_head"),
    ]:
        assert torch.equal(parameter, before[name])


def test_no_gradient_reaches_the_copy_and_buffers_are_its_own():
    made = shaken(tiny("moco-v3", "resnet-mini", **RESNET))
    forward(made).total.backward()
    assert all(parameter.grad is None for parameter in [*made.teacher.parameters(), *made.teacher_head.parameters()])
    assert not torch.equal(made.teacher_head[1].running_mean, made.head[1].running_mean)


def test_each_view_is_a_pass_of_its_own():
    """Running statistics are updated twice a step, each time by one view's."""
    made = tiny("moco-v3")
    views, draws = seen(made)
    means = [made.head[0](made.student(views[name]).pooled).mean(0) for name in ("view1", "view2")]
    made(views, draws, FIRST)
    torch.testing.assert_close(made.head[1].running_mean, 0.9 * 0.1 * means[0] + 0.1 * means[1])


def test_queries_pass_the_predictor_and_keys_do_not():
    """Mutation: the predictor applied to keys."""
    made, calls = tiny("moco-v3"), []
    made.predictor.register_forward_hook(lambda _, args, out: calls.append(out.requires_grad))
    forward(made)
    assert calls == [True, True]
    assert torch.equal(
        (plain := tiny("moco-v3", predictor=False)).query(x := torch.ones(4, 3, 16, 16)), plain.head(plain.student(x).pooled)
    )


def test_swapping_the_views_swaps_the_terms():
    made = tiny("moco-v3", momentum=1.0)
    views, draws = seen(made)
    one, other = made(views, draws, FIRST), made({"view1": views["view2"], "view2": views["view1"]}, draws, FIRST)
    torch.testing.assert_close(one.parts["first"], other.parts["second"])
    torch.testing.assert_close(one.total, other.total)


def test_an_encoder_that_says_the_same_of_everything_is_at_chance():
    made = tiny("moco-v3", predictor=False, head_norm=False, temperature=0.3)
    for parameter in [*made.student.parameters(), *made.teacher.parameters()]:
        parameter.data.zero_()
    terms = forward(made)
    assert terms.chance == pytest.approx(4 * 0.3 * math.log(8))
    assert terms.total.item() == pytest.approx(terms.chance)


def test_patches_keep_their_random_projection():
    def changed(**options: bool) -> set[str]:
        made = tiny("moco-v3", **options)
        before = state(made.student)
        stepping(made, optimiser="adamw", weight_decay=0.5)(pictures(16), FIRST)
        return {name for name, value in state(made.student).items() if not torch.equal(value, before[name])}

    assert changed(freeze_patches=False) - changed() == {"patch_embed.proj.weight", "patch_embed.proj.bias"}


def test_everything_decays_in_transformers_and_only_matrices_in_residual_networks():
    """Mutation: LARS applied to biases."""
    made = tiny("moco-v3")
    assert all(group["decays"] for group in stepping(made, weight_decay=0.1).optimiser.param_groups)
    made = tiny("moco-v3", "resnet-mini", **RESNET)
    of = {id(p): name for name, p in made.named_parameters()}
    groups = stepping(made, optimiser="lars", weight_decay=0.1).optimiser.param_groups
    spared = {of[id(p)] for group in groups if not group["decays"] for p in group["params"]}
    assert spared == {name for name, p in made.named_parameters() if p.ndim == 1 and p.requires_grad}


def test_heads_are_the_published_ones():
    spec = {name: tuple(p.shape) for name, p in tiny("moco-v3", head_width=4096, head_out=256).named_parameters()}
    assert [spec[f"head.{i}.weight"] for i in (0, 3, 6)] == [(4096, 96), (4096, 4096), (256, 4096)]
    assert [spec[f"predictor.{i}.weight"] for i in (0, 3)] == [(4096, 256), (256, 4096)]
    assert not {"head.0.bias", "head.6.bias", "head.7.weight", "head.7.bias", "predictor.4.weight"} & set(spec)
    assert [type(m).__name__ for m in tiny("moco-v3", **RESNET).predictor] == ["Linear", "BatchNorm", "ReLU", "Linear"]
    plain = tiny("moco-v3", head_norm=False)
    assert not any(type(m).__name__ == "BatchNorm" for m in plain.modules())


def test_transformers_are_built_as_published():
    options = MoCoV3.Options()
    assert MoCoV3.encoder_options(options, "vit-small/16") == {"positions": "sincos-row", "init": "moco", "heads": 12}
    assert MoCoV3.encoder_options(options, "vit-base/16") == {"positions": "sincos-row", "init": "moco"}
    assert MoCoV3.encoder_options(options, "resnet50") == {"zero_gain": True}


def test_the_papers_views():
    """BYOL's pair: blur in all first and a tenth of second views, solarised second views only."""
    views = MoCoV3(MoCoV3.Options(), tiny("moco-v3").student, SPEC, 224).views()
    assert list(views) == ["view1", "view2"]
    for view in views.values():
        assert (view.size, view.area, view.flip, view.grey, view.normalise) == (224, (0.08, 1.0), 0.5, 0.2, "imagenet")
        assert view.jitter == Jitter(0.4, 0.4, 0.2, 0.1, probability=0.8)
        assert view.solarise_threshold == 0.5
    assert [view.blur for view in views.values()] == [Blur(0.1, 2.0, 1.0), Blur(0.1, 2.0, 0.1)]
    assert [view.solarise for view in views.values()] == [0.0, 0.2]


def test_the_papers_options_and_training():
    o, t = MoCoV3.Options(), MoCoV3.paper_training
    assert (o.temperature, o.momentum, o.head_width, o.head_out, o.projector_layers) == (0.2, 0.99, 4096, 256, 3)
    assert o.predictor
    assert o.predictor_norm
    assert o.freeze_patches
    assert t == {
        "encoder": "vit-small/16", "size": 224, "batch": 4096, "epochs": 300, "warmup_epochs": 40, "optimiser": "adamw",
        "lr_per_256": 1.5e-4, "weight_decay": 0.1,
    }  # fmt: skip


def test_auto_follows_the_length_of_the_run():
    assert [auto("moco-v3", steps=s)["momentum"] for s in (100, 2000, 10**6)] == pytest.approx([0.9, 0.985, 0.996])
    usual, transformer = auto("moco-v3"), auto("moco-v3", encoder="vit-tiny/4")
    assert (usual["head_width"], usual["head_out"], usual["jitter"]) == (512, 128, 0.5)
    assert (usual["projector_layers"], usual["predictor_norm"]) == (2, False)
    assert (transformer["projector_layers"], transformer["predictor_norm"]) == (3, True)
    assert "temperature" not in usual
