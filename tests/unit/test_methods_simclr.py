"""SimCLR: what is its own."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_methods import FIRST, SPEC, auto, forward, seen, stepping, tiny

from tacit.methods.method import Progress
from tacit.methods.simclr import SimCLR
from tacit.views.image import Blur, Jitter


def test_both_views_pass_together_first_views_first():
    """Batch-norm mixes the statistics of both views."""
    made, calls = tiny("simclr"), []
    made.student.register_forward_hook(lambda _, args, out: calls.append((args[0], out.pooled)))
    views, draws = seen(made)
    made(views, draws, FIRST)
    ((x, features),) = calls
    assert torch.equal(x, torch.cat([views["view1"], views["view2"]]))
    norm = made.head.layers[0].bn
    hidden = made.head.layers[0].linear(features)
    torch.testing.assert_close(norm.running_mean, 0.1 * hidden.mean(0))


def test_swapping_the_views_changes_nothing():
    made = tiny("simclr").double()
    views, draws = seen(made)
    views = {name: view.double() for name, view in views.items()}
    swapped = {"view1": views["view2"], "view2": views["view1"]}
    torch.testing.assert_close(made(swapped, draws, FIRST).total, made(views, draws, FIRST).total, rtol=1e-12, atol=0)


@pytest.mark.parametrize(("reduction", "scale"), [("official", 2), ("paper", 1)])
def test_an_encoder_that_says_the_same_of_everything_is_at_chance(reduction, scale):
    made = tiny("simclr", head_layers=0, reduction=reduction)
    for parameter in made.student.parameters():
        parameter.data.zero_()
    made.student.norm.bias.data.fill_(1.0)
    terms = forward(made)
    assert terms.chance == pytest.approx(scale * math.log(15))
    assert terms.total.item() == pytest.approx(terms.chance)


def test_lengths_count_where_embeddings_are_not_put_on_the_sphere():
    def loss(scale: float, **options: bool) -> float:
        made = tiny("simclr", head_layers=1, **options)
        made.head.layers[0].bn.weight.data.fill_(scale)
        return forward(made).total.item()

    assert loss(1.0) == pytest.approx(loss(0.5), rel=1e-4)
    assert loss(1.0, unit_length=False) != pytest.approx(loss(0.5, unit_length=False), rel=1e-2)


def test_the_head_is_as_deep_and_wide_as_asked_for():
    def shapes(**options: int) -> list[tuple[int, ...]]:
        made = tiny("simclr", **options)
        return [tuple(p.shape) for name, p in made.head.named_parameters() if name.endswith("linear.weight")]

    assert shapes(head_layers=0) == []
    assert shapes(head_layers=1) == [(16, 96)]
    assert shapes(head_layers=2) == [(24, 96), (16, 24)]
    assert shapes(head_layers=3, head_width=0) == [(96, 96), (96, 96), (16, 96)]


def test_residual_networks_start_as_in_the_paper():
    """Convolutions truncated at two deviations with variance 1 / fan-in; in published sizes every block as its shortcut."""
    weight = tiny("simclr", "resnet-mini").student.layer2[0].conv1.weight
    fan_in = weight[0].numel()
    assert float(weight.detach().std()) == pytest.approx(fan_in**-0.5, rel=0.05)
    assert float(weight.detach().abs().max()) <= 2 * fan_in**-0.5 / 0.8796 + 1e-6
    options = SimCLR.Options()
    assert SimCLR.encoder_options(options, "resnet50") == {"init": "simclr", "zero_gain": True}
    assert SimCLR.encoder_options(options, "vit-tiny/4") == {}


def test_the_papers_views():
    """Area 0.08 to 1, jitter of strength 1 with probability 0.8, grey 0.2, blur of 0.1 to 2 pixels in half, no mean, no std."""
    made = SimCLR(SimCLR.Options(), tiny("simclr").student, SPEC, 224)
    views = made.views()
    assert list(views) == ["view1", "view2"]
    assert views["view1"] == views["view2"]
    view = views["view1"]
    assert (view.size, view.area, view.aspect, view.flip) == (224, (0.08, 1.0), (3 / 4, 4 / 3), 0.5)
    assert view.jitter == Jitter(0.8, 0.8, 0.8, 0.2, probability=0.8)
    assert (view.grey, view.blur, view.solarise) == (0.2, Blur(0.1, 2.0, 0.5), 0.0)
    assert (view.normalise, view.interpolation) == ("none", "bicubic")


def test_the_papers_options_and_training():
    o, t = SimCLR.Options(), SimCLR.paper_training
    assert (o.temperature, o.head_layers, o.head_width, o.head_out, o.reduction) == (0.1, 3, 0, 128, "official")
    assert t == {
        "encoder": "resnet50", "size": 224, "batch": 4096, "epochs": 100, "warmup_epochs": 10, "optimiser": "lars-simclr",
        "lr_per_256": 0.3, "weight_decay": 1e-6, "momentum": 0.9,
    }  # fmt: skip


def test_auto_follows_the_data():
    usual = auto("simclr")
    assert usual["temperature"] == 0.2
    assert auto("simclr", duplicates=0.3)["temperature"] == auto("simclr", steps=30_000)["temperature"] == 0.5
    assert (usual["area"], usual["jitter"], usual["blur"], usual["grey"], usual["flip"]) == (0.2, 0.5, 0.0, 0.2, 0.5)
    assert auto("simclr", size=64)["blur"] == 0.5
    assert auto("simclr", size=128)["area"] == 0.08
    for name in ("simclr", "moco-v3"):
        assert [auto(name, sparse=sparse)["area"] for sparse in (0.7, 0.8)] == [0.2, 0.5]
    grey = SPEC.__class__("image", 1, (128, 128))
    assert [auto("simclr", spec=grey, size=128)[name] for name in ("grey", "jitter")] == [0.0, 0.5]
    assert auto("simclr", mirrored=False)["flip"] == 0.0
    assert usual["train.lr"] == pytest.approx(2e-3 * math.sqrt(0.5))
    assert auto("simclr", steps=1999)["train.lr"] == pytest.approx(4e-3 * math.sqrt(0.5))
    assert auto("simclr", steps=500, encoder="vit-mini/4")["train.lr"] == pytest.approx(1e-3 * math.sqrt(0.5))
    assert (usual["train.optimiser"], usual["train.beta2"], usual["train.weight_decay"]) == ("adamw", 0.99, 0.02)


def test_blur_shrinks_with_the_view_and_never_below_its_least():
    made = tiny("simclr", blur=0.5)
    assert made.views()["view1"].blur == Blur(0.1, 2 * 16 / 224, 0.5)
    small = SimCLR(SimCLR.Options(), made.student, SPEC, 8)
    assert small.views()["view1"].blur == Blur(0.1, 0.1, 0.5)


def test_norms_and_biases_are_spared_by_lars():
    made = tiny("simclr", "resnet-mini")
    groups = stepping(made, optimiser="lars-simclr", weight_decay=0.1).optimiser.param_groups
    of = {id(p): name for name, p in made.named_parameters()}
    spared = {of[id(p)] for group in groups if not group["decays"] for p in group["params"]}
    assert spared == {name for name, p in made.named_parameters() if p.ndim == 1}
    assert all(group["weight_decay"] == 0 for group in groups if not group["decays"])


def test_nothing_depends_on_how_far_the_run_is():
    made = tiny("simclr")
    assert torch.equal(forward(made).total, forward(made, progress=Progress(7, 10, 5)).total)
