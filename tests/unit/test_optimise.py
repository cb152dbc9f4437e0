"""Groups of parameters, optimisers, clipping."""

from __future__ import annotations

import io
import math

import pytest
import torch
from torch import nn

from tacit.core.draws import Draws
from tacit.core.errors import TacitError
from tacit.nn.build import encoder
from tacit.train.optimise import build, clip, clip_each, groups, set_rates


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return Draws(seed, 0, torch.arange(shape[0])).normal("x", *shape[1:]).double()


def flat(_: str, parameter: torch.Tensor) -> bool:
    return parameter.ndim > 1


def test_decay_spares_norms_and_biases_but_not_tokens():
    model = encoder("vit-micro/4", 3, 16, positions="learned")
    made = groups(model.named_parameters(), flat, 0.05)
    assert [group["weight_decay"] for group in made] == [0.05, 0.0]
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed = {names[id(parameter)] for parameter in made[0]["params"]}
    assert {"cls_token", "pos_embed", "blocks.0.attn.qkv.weight"} <= decayed
    assert not any(name.endswith("bias") or "norm" in name for name in decayed)
    assert sum(len(group["params"]) for group in made) == len(names)


def test_layer_decay_shrinks_rates_towards_the_input():
    model = encoder("vit-micro/4", 3, 16)
    made = groups(model.named_parameters(), flat, 0.05, model.level, model.depth, layer_decay=0.5)
    scale = {id(parameter): group["lr_scale"] for group in made for parameter in group["params"]}
    at = {name: scale[id(parameter)] for name, parameter in model.named_parameters()}
    assert at["cls_token"] == 0.5**5
    assert at["blocks.0.norm1.weight"] == 0.5**4
    assert at["blocks.3.mlp.fc2.bias"] == 0.5
    assert at["norm.weight"] == 1
    optimiser = build("adamw", made, 0.1)
    assert sorted({group["lr"] for group in optimiser.param_groups}) == pytest.approx([0.1 * 0.5**k for k in range(5, -1, -1)])


def test_what_is_frozen_is_left_out():
    model = encoder("vit-micro/4", 3, 16)
    model.patch_embed.requires_grad_(False)
    trained = {id(parameter) for group in groups(model.named_parameters(), flat, 0.1) for parameter in group["params"]}
    assert id(model.patch_embed.proj.weight) not in trained


def test_fixed_positions_do_not_move_under_weight_decay():
    model = encoder("vit-micro/4", 3, 16)
    before, bias = model.pos_embed.clone(), model.patch_embed.proj.bias.detach().clone()
    optimiser = build("adamw", groups(model.named_parameters(), lambda *_: True, 0.5), 0.1)
    x = torch.linspace(-1, 1, 2 * 3 * 256).reshape(2, 3, 16, 16)
    model(x).tokens.square().sum().backward()
    optimiser.step()
    assert torch.equal(model.pos_embed, before)
    assert not torch.equal(model.patch_embed.proj.bias, bias)


def test_rates_are_set_with_their_scale_and_decay_only_where_there_is_one():
    a, b = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))
    made = groups([("a", a), ("b", b)], flat, 0.1, level=lambda name: int(name == "a"), depth=0, layer_decay=0.5)
    optimiser = build("sgd", made, 1.0)
    set_rates(optimiser, 0.2, weight_decay=0.3)
    assert [(group["lr"], group["weight_decay"]) for group in optimiser.param_groups] == [(0.2, 0.3), (0.1, 0.0)]
    set_rates(optimiser, 0.4)
    assert [(group["lr"], group["weight_decay"]) for group in optimiser.param_groups] == [(0.4, 0.3), (0.2, 0.0)]


def lars_by_hand(w, grads, rates, decay, fold, adapts, momentum=0.9, trust=0.001):
    v, seen = [0.0] * len(w), []
    for g, lr in zip(grads, rates, strict=True):
        d = [x + decay * y for x, y in zip(g, w, strict=True)] if adapts else list(g)
        length_w, length_d = math.hypot(*w), math.hypot(*d)
        q = trust * length_w / length_d if adapts and length_w > 0 and length_d > 0 else 1.0
        v = [momentum * x + (lr if fold else 1.0) * q * y for x, y in zip(v, d, strict=True)]
        w = [x - (1.0 if fold else lr) * y for x, y in zip(w, v, strict=True)]
        seen.append(list(w))
    return seen


@pytest.mark.parametrize("name", ["lars", "lars-simclr"])
@pytest.mark.parametrize("start", [1.0, 0.0])
def test_lars_is_its_twin_at_a_decay_that_shows(name, start):
    """Golden files decay by 1e-6 only. Mutations: decay left out of the denominator; biases scaled; rate folded or not."""
    weight, bias = nn.Parameter(start * normal(4, 3)), nn.Parameter(start * normal(3))
    grads, rates = [normal(7, 3, seed=s) for s in (1, 2, 3)], [0.3, 0.1, 0.7]
    optimiser = build(name, groups([("w", weight), ("b", bias)], flat, 0.01), 0.0)
    fold = name == "lars-simclr"
    expected = lars_by_hand(weight.flatten().tolist(), [g[:4].flatten().tolist() for g in grads], rates, 0.01, fold, True)
    of_bias = lars_by_hand(bias.tolist(), [g[4].tolist() for g in grads], rates, 0.01, fold, False)
    for step, (grad, lr) in enumerate(zip(grads, rates, strict=True)):
        set_rates(optimiser, lr)
        weight.grad, bias.grad = grad[:4].clone(), grad[4].clone()
        optimiser.step()
        torch.testing.assert_close(weight.flatten(), torch.tensor(expected[step]).double(), rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(bias.data, torch.tensor(of_bias[step]).double(), rtol=1e-6, atol=1e-9)


def test_lars_leaves_alone_what_has_no_gradient_and_survives_zero_gradients():
    weight, other = nn.Parameter(normal(4, 3)), nn.Parameter(normal(2, 2))
    before = weight.detach().clone(), other.detach().clone()
    optimiser = build("lars", groups([("w", weight), ("o", other)], flat, 0.0), 0.1)
    weight.grad = torch.zeros_like(weight)
    optimiser.step()
    assert torch.equal(weight, before[0])
    assert torch.equal(other, before[1])


@pytest.mark.parametrize("name", ["adamw", "sgd", "lars", "lars-simclr"])
def test_states_hold_tensors_and_numbers_only_and_go_on_bitwise(name):
    def run(steps: range, weight: nn.Parameter, optimiser) -> None:
        for step in steps:
            weight.grad = normal(4, 3, seed=step)
            optimiser.step()

    first = nn.Parameter(normal(4, 3))
    one = build(name, groups([("w", first)], flat, 0.1), 0.1)
    run(range(3), first, one)
    file = io.BytesIO()
    torch.save({"weight": first.data, "optimiser": one.state_dict()}, file)
    run(range(3, 6), first, one)
    file.seek(0)
    kept = torch.load(file, weights_only=True)
    second = nn.Parameter(kept["weight"])
    two = build(name, groups([("w", second)], flat, 0.1), 0.5)
    two.load_state_dict(kept["optimiser"])
    run(range(3, 6), second, two)
    assert torch.equal(first, second)


def test_names_and_options_are_checked():
    made = groups([("w", nn.Parameter(torch.ones(2, 2)))], flat, 0.1)
    with pytest.raises(TacitError, match="did you mean 'adamw'"):
        build("adam", made, 0.1)
    with pytest.raises(TacitError, match="did you mean 'betas'"):
        build("adamw", made, 0.1, beta=(0.9, 0.95))
    assert build("adamw", made, 0.1, betas=(0.9, 0.95)).param_groups[0]["betas"] == (0.9, 0.95)
    assert build("sgd", made, 0.1, nesterov=True).param_groups[0]["nesterov"] is True


def gradients(*lengths: float) -> list[nn.Parameter]:
    parameters = [nn.Parameter(torch.zeros(4).double()) for _ in lengths]
    for seed, (parameter, length) in enumerate(zip(parameters, lengths, strict=True)):
        parameter.grad = torch.nn.functional.normalize(normal(4, seed=seed), dim=0) * length
    return [*parameters, nn.Parameter(torch.zeros(3))]


def lengths_of(parameters: list[nn.Parameter]) -> list[float]:
    return [float(parameter.grad.norm()) for parameter in parameters if parameter.grad is not None]


def test_clipping_shortens_all_together_or_each_by_itself():
    """Mutation: the global norm where DINO clips by tensor."""
    parameters = gradients(3.0, 4.0)
    assert float(clip(parameters, 1.0)) == pytest.approx(5.0)
    assert lengths_of(parameters) == pytest.approx([0.6, 0.8], rel=1e-5)
    parameters = gradients(3.0, 0.5)
    assert float(clip_each(parameters, 1.0)) == pytest.approx(math.hypot(3, 0.5))
    assert lengths_of(parameters) == pytest.approx([1.0, 0.5], rel=1e-5)
    parameters = gradients(3.0, 4.0)
    assert float(clip(parameters, math.inf)) == pytest.approx(5.0)
    assert lengths_of(parameters) == pytest.approx([3.0, 4.0])
