"""The parts of SimCLR and MoCo v3 against numbers from their published code."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from golden import assert_near, golden
from tacit.nn.ema import follow, momentum
from tacit.nn.heads import SimCLRProjector, moco_mlp
from tacit.objectives.contrast import moco, nt_xent, similarities
from tacit.train.optimise import build, groups, set_rates
from tacit.train.schedule import warmup_cosine

SIMCLR = golden("simclr")


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_nt_xent(dtype, tolerance):
    case = SIMCLR["ntxent"]
    hidden, t = case.inputs["hidden"].to(dtype).requires_grad_(), case.hyper["temperature"]
    first, second = hidden.chunk(2)
    loss = nt_xent(first, second, t)
    assert_near(loss, case.out["loss"], tolerance, tolerance)
    assert_near(nt_xent(first, second, t, reduction="paper"), case.out["loss_paper"], tolerance, tolerance)
    assert_near(similarities(first, second, t), case.out["logits_ab"], tolerance, tolerance)
    assert_near(torch.autograd.grad(loss, hidden)[0], case.out["grad_hidden"], tolerance, tolerance)


def test_nt_xent_gathered():
    case = SIMCLR["ntxent_gathered"]
    view1, view2, t = case.inputs["view1"], case.inputs["view2"], case.hyper["temperature"]
    all1, all2 = view1.flatten(0, 1), view2.flatten(0, 1)
    rows = view1.shape[1]
    losses = [nt_xent(a, b, t, all1, all2, offset=rank * rows) for rank, (a, b) in enumerate(zip(view1, view2, strict=True))]
    assert_near(torch.stack(losses), case.out["loss_per_rank"])
    assert_near(torch.stack(losses).mean(), case.out["loss_global"])
    assert_near(nt_xent(all1, all2, t), case.out["loss_global"])


def test_projection_head():
    case = SIMCLR["projection_head"]
    widths = [len(w) for name, w in case.weights.items() if name.endswith("linear.weight")]
    features = case.inputs["h"]
    head = SimCLRProjector(features.shape[1], len(widths), widths[0], widths[-1], eps=case.hyper["bn_eps"]).double()
    head.load_state_dict({**head.state_dict(), **case.weights})
    assert {name for name, _ in head.named_parameters()} == set(case.weights)
    assert_near(head.layers[0](features), case.out["first_layer"])
    assert_near(head(features), case.out["z"])


@pytest.mark.parametrize(("name", "optimiser"), [("lars_simclr", "lars-simclr"), ("lars_moco", "lars")])
def test_lars(name, optimiser):
    case = SIMCLR[name]
    h = case.hyper
    weight, bias = nn.Parameter(case.inputs["weight"]), nn.Parameter(case.inputs["bias"])
    made = groups([("weight", weight), ("bias", bias)], lambda _, p: p.ndim > 1, h["weight_decay"])
    lars = build(optimiser, made, 0.0, momentum=h["momentum"], trust=h["trust"])
    for step, lr in enumerate(h["lr"].tolist()):
        set_rates(lars, lr)
        weight.grad, bias.grad = case.inputs["weight_grad"][step].clone(), case.inputs["bias_grad"][step].clone()
        lars.step()
        assert_near(weight, case.out["weight"][step])
        assert_near(bias, case.out["bias"][step])


def test_moco_loss_and_its_gradient():
    case = SIMCLR["moco_loss"]
    query, key = case.inputs["query"].requires_grad_(), case.inputs["key"].requires_grad_()
    keys, rows = key.flatten(0, 1), query.shape[1]
    losses = [moco(q, keys, case.hyper["temperature"], offset=rank * rows) for rank, q in enumerate(query)]
    assert_near(torch.stack(losses), case.out["loss_per_rank"])
    of_query, of_key = torch.autograd.grad(sum(losses), [query, key], allow_unused=True)
    assert_near(of_query, case.out["grad_query"])
    assert of_key is None


def test_moco_schedules():
    case = SIMCLR["moco_schedule"]
    h, epochs = case.hyper, case.inputs["epoch"].tolist()
    rates = [warmup_cosine(e, h["warmup_epochs"], h["epochs"], h["lr"]) for e in epochs]
    assert_near(torch.tensor(rates, dtype=torch.float64), case.out["lr"])
    momenta = [momentum(e / h["epochs"], h["momentum"]) for e in epochs]
    assert_near(torch.tensor(momenta, dtype=torch.float64), case.out["momentum"])


class Toy(nn.Module):
    """`tanh(body)` and MoCo v3's projector."""

    def __init__(self, body: tuple[int, int], projector: list[int], eps: float) -> None:
        super().__init__()
        self.body = nn.Linear(*body)
        self.fc = moco_mlp(projector, eps=eps)

    def forward(self, x):
        return self.fc(torch.tanh(self.body(x)))


def test_moco_step_from_its_parts():
    case = SIMCLR["moco_step"]
    h = case.hyper
    base, copy, head = (case.part(prefix) for prefix in ("base_encoder.", "momentum_encoder.", "predictor."))
    hidden, features = base["fc.0.weight"].shape
    out = len(base["fc.3.weight"])
    body = (base["body.weight"].shape[1], features)
    student, teacher = (Toy(body, [features, hidden, out], h["bn_eps"]).double() for _ in range(2))
    predictor = moco_mlp([out, len(head["0.weight"]), len(head["3.weight"])], last_norm=False, eps=h["bn_eps"]).double()
    for module, weights in ((student, base), (teacher, copy), (predictor, head)):
        assert {name for name, _ in module.named_parameters()} == set(weights)
        module.load_state_dict({**module.state_dict(), **weights})
    view1, view2 = case.inputs["view1"], case.inputs["view2"]
    query1, query2 = predictor(student(view1)), predictor(student(view2))
    follow(teacher, student, h["momentum"])
    with torch.no_grad():
        key1, key2 = teacher(view1), teacher(view2)
    loss = moco(query1, key2, h["temperature"]) + moco(query2, key1, h["temperature"])
    loss.backward()
    assert_near(loss, case.out["loss"])
    assert_near(teacher.body.weight, case.out["momentum_body_weight"])
    assert_near(student.body.weight.grad, case.out["grad_body_weight"])
    assert_near(predictor[3].weight.grad, case.out["grad_predictor_last"])
    # What the golden file leaves out: all other parameters moved too.
    for name, parameter in teacher.named_parameters():
        assert_near(parameter, h["momentum"] * copy[name] + (1 - h["momentum"]) * base[name])
