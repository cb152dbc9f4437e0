"""Which outputs of an encoder are its features, and MAE's linear probe: against straightforward twins."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from test_evaluate_classifiers import assert_chance, blobs, shuffled
from torch import Tensor, nn

from tacit.core.errors import TacitError
from tacit.evaluation import linear_bn as probe
from tacit.evaluation.linear_bn import linear_bn, train_linear_bn
from tacit.evaluation.readout import FEATURES, read_out
from tacit.evaluation.shuffle import shuffles
from tacit.nn import build
from tacit.nn.vit import VisionTransformer
from tacit.train.optimise import Lars


def vit(**options) -> VisionTransformer:
    encoder = build.encoder("vit-mini/8", channels=3, size=32, seed=1, **options)
    assert isinstance(encoder, VisionTransformer)
    with torch.no_grad():  # so that leaving a norm out, or taking another one, shows
        for number, norm in enumerate(module for module in encoder.modules() if isinstance(module, nn.LayerNorm)):
            norm.weight.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(number))
            norm.bias.uniform_(-0.5, 0.5, generator=torch.Generator().manual_seed(number))
    return encoder.eval()


def images() -> Tensor:
    return torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def blocks_by_hook(encoder: VisionTransformer, x: Tensor) -> list[Tensor]:
    """What every block gives, `[B, 1 + L, D]`."""
    seen: list[Tensor] = []
    hooks = [block.register_forward_hook(lambda module, given, out: seen.append(out)) for block in encoder.blocks]
    encoder(x)
    for hook in hooks:
        hook.remove()
    return seen


@torch.no_grad()
def test_class4_is_the_normed_class_token_of_the_last_four_blocks_side_by_side():
    encoder, x = vit(), images()
    expected = torch.cat([encoder.norm(out)[:, 0] for out in blocks_by_hook(encoder, x)[-4:]], dim=-1)
    found = read_out(encoder, x, "class4")
    assert found.shape == (5, 4 * encoder.width)
    assert torch.allclose(found, expected, atol=1e-6)
    assert torch.allclose(found[:, -encoder.width :], read_out(encoder, x, "class"), atol=1e-6)


@torch.no_grad()
def test_class_and_mean_are_read_after_the_last_norm():
    encoder, x = vit(), images()
    last = encoder.norm(blocks_by_hook(encoder, x)[-1])
    expected = torch.cat([last[:, 0], last[:, 1:].mean(dim=1)], dim=-1)
    assert torch.allclose(read_out(encoder, x, "class+mean"), expected, atol=1e-6)
    assert torch.allclose(read_out(encoder, x, "mean"), expected[:, encoder.width :], atol=1e-6)
    assert torch.equal(read_out(encoder, x), encoder(x).pooled)
    beside = torch.cat([last[:, 1:].mean(dim=1), last[:, 1:].amax(dim=1)], dim=-1)
    assert torch.allclose(read_out(encoder, x, "mean+max"), beside, atol=1e-6)


@torch.no_grad()
def test_registers_are_no_class_token():
    with_class = vit(registers=2)
    assert torch.equal(read_out(with_class, images(), "class"), with_class(images()).pooled)
    without = vit(registers=2, class_token=False, pool="mean")
    for features in ("class", "class+mean", "class4"):
        with pytest.raises(TacitError, match=r"class token|class4"):
            read_out(without, images(), features)


@torch.no_grad()
def test_what_an_encoder_lacks_is_refused_in_one_line():
    resnet = build.encoder("resnet-mini", channels=3, size=32).eval()
    assert torch.equal(read_out(resnet, images(), "mean"), resnet(images()).pooled)
    for features, said in (("class", "no class token"), ("class4", "tacit's transformers"), ("class5", "did you mean 'class")):
        with pytest.raises(TacitError, match=said) as problem:
            read_out(resnet, images(), features)
        assert "\n" not in str(problem.value)
    assert all(FEATURES.values())


# MAE's linear probe ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("samples", [400, 1300])
def test_the_probe_is_batch_norm_a_linear_layer_and_lars(monkeypatch: pytest.MonkeyPatch, samples: int):
    monkeypatch.setattr(probe, "STEPS", 45)
    data = blobs(samples=samples)
    x, y = data.train_x.double(), data.train_y
    mean, variance, weight, bias = train_linear_bn(x, y, 7, seed=3)

    norm = nn.BatchNorm1d(40, affine=False, eps=1e-6).double().train()
    layer = nn.Linear(40, 7).double()
    with torch.no_grad():  # the same first weights: those of no steps at all
        monkeypatch.setattr(probe, "STEPS", 0)
        layer.weight.copy_(train_linear_bn(x, y, 7, seed=3)[2].T)
        layer.bias.zero_()
    assert 0.008 < float(layer.weight.detach().std()) < 0.012
    optimiser = Lars([{"params": [layer.weight]}, {"params": [layer.bias], "decays": False}], lr=0.0, weight_decay=0.0)
    batch = 200 if samples == 400 else 256
    orders, left = shuffles(len(x), 3, "linear-bn", x.device), []
    for step in range(45):
        if not left:
            left = list(next(orders)[: len(x) // batch * batch].split(batch))
        rows = left.pop(0)
        for group in optimiser.param_groups:
            group["lr"] = 6.4 * (step / 5 if step < 5 else 0.5 * (1 + math.cos(math.pi * (step - 5) / 40)))
        optimiser.zero_grad()
        F.cross_entropy(layer(norm(x[rows])), y[rows]).backward()
        optimiser.step()

    assert torch.allclose(weight, layer.weight.T, atol=1e-9)
    assert torch.allclose(bias, layer.bias, atol=1e-9)
    assert torch.allclose(mean, norm.running_mean, atol=1e-9)
    assert torch.allclose(variance, norm.running_var, atol=1e-9)


def test_the_probe_on_test_uses_the_running_statistics(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(probe, "STEPS", 60)
    data = blobs()
    mean, variance, weight, bias = train_linear_bn(data.train_x, data.train_y, 7, seed=0)
    scores = (data.test_x - mean) / (variance + 1e-6).sqrt() @ weight + bias
    expected = float((scores.argmax(1) == data.test_y).double().mean())
    assert linear_bn(data).values["top1"] == pytest.approx(expected)
    assert expected > 0.5


def test_the_probe_on_shuffled_labels_is_chance(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(probe, "STEPS", 500)
    data = shuffled(blobs(samples=1400, distance=0.1))
    assert_chance(linear_bn(data).values["top1"], data)


def test_on_imagenet_the_probe_has_the_published_batch_and_passes():
    count = 1_281_167
    batch = min(max(count // probe.PASS, probe.SMALLEST), probe.LARGEST)
    assert (batch, probe.STEPS / (count // batch)) == (16384, 90)
    assert pytest.approx(0.1 * 16384 / 256) == probe.RATE


def test_orders_are_permutations_that_depend_on_seed_and_name():
    orders = shuffles(1000, 0, "linear", torch.device("cpu"))
    first, second = next(orders), next(orders)
    assert sorted(first.tolist()) == list(range(1000))
    assert not torch.equal(first, second)
    assert torch.equal(next(shuffles(1000, 0, "linear", torch.device("cpu"))), first)
    for seed, name in ((1, "linear"), (0, "other")):
        assert not torch.equal(next(shuffles(1000, seed, name, torch.device("cpu"))), first)


def test_constant_features_are_no_obstacle(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(probe, "STEPS", 50)
    data = blobs()
    constant = replace(data, train_x=torch.ones_like(data.train_x), test_x=torch.ones_like(data.test_x))
    assert linear_bn(constant).values["top1"] == pytest.approx(1 / 7, abs=0.02)
