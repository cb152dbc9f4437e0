"""Projectors, predictors, prototypes, teachers, batch-norm."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tacit.core.draws import Draws
from tacit.nn.ema import follow, momentum, teacher_of
from tacit.nn.heads import DINOHead, SimCLRProjector, moco_mlp
from tacit.nn.init import seeded
from tacit.nn.norms import BatchNorm


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return Draws(seed, 0, torch.arange(shape[0])).normal("x", *shape[1:]).double()


X = normal(16, 12)


@pytest.mark.parametrize("layers", [0, 1, 2, 3])
def test_simclr_projector_has_no_bias_and_no_shift_at_its_end(layers):
    """Mutation: the final norm with a shift."""
    head = SimCLRProjector(12, layers, hidden=20, out=6).double()
    assert head(X).shape == (16, 6 if layers else 12)
    names = {name for name, _ in head.named_parameters()}
    assert not any(name.endswith("linear.bias") for name in names)
    assert sum(name.endswith("bn.weight") for name in names) == layers
    assert sum(name.endswith("bn.bias") for name in names) == max(layers - 1, 0)
    if layers == 0:
        assert torch.equal(head(X), X)
    else:
        assert head.state_dict()["layers.0.linear.weight"].std() == pytest.approx(0.01, rel=0.25)
        assert (head(X) < 0).any()  # no ReLU at the end


def test_moco_mlp_ends_in_a_norm_without_gain_and_shift_or_in_none():
    projector, predictor = moco_mlp([12, 20, 20, 6]).double(), moco_mlp([12, 20, 6], last_norm=False).double()
    assert [name for name, _ in projector.named_parameters()] == [
        "0.weight", "1.weight", "1.bias", "3.weight", "4.weight", "4.bias", "6.weight"
    ]  # fmt: skip
    y = projector(X)
    torch.testing.assert_close(y.mean(0), torch.zeros(6).double(), rtol=0, atol=1e-9)
    torch.testing.assert_close(y.var(0, correction=0), torch.ones(6).double(), rtol=1e-2, atol=0)
    assert [type(module).__name__ for module in predictor] == ["Linear", "BatchNorm", "ReLU", "Linear"]
    plain = moco_mlp([12, 20, 6], norm=False)
    assert [type(module).__name__ for module in plain] == ["Linear", "ReLU", "Linear"]
    assert plain[0].bias is not None


def test_dino_logits_are_cosines_while_the_gain_is_fixed():
    head = DINOHead(12, 30, hidden=16, bottleneck=8).double()
    head.last_layer.weight_v.data *= torch.linspace(0.1, 40, 30)[:, None]
    logits = head(100 * X)
    assert logits.abs().max() <= 1 + 1e-12
    points, directions = F.normalize(head.mlp(100 * X), dim=-1), F.normalize(head.last_layer.weight_v, dim=-1)
    torch.testing.assert_close(logits, points @ directions.T)
    logits.square().sum().backward()
    assert head.last_layer.weight_g.grad is None
    assert head.last_layer.weight_v.grad is not None


def test_a_free_gain_is_trained():
    head = DINOHead(12, 30, hidden=16, bottleneck=8, fixed_gain=False).double()
    head(X).square().sum().backward()
    assert head.last_layer.weight_g.grad is not None


def test_a_prototype_gains_nothing_along_its_own_direction():
    head = DINOHead(12, 30, hidden=16, bottleneck=8).double()
    (head(X) * normal(16, 30, seed=1)).sum().backward()
    v = head.last_layer.weight_v
    torch.testing.assert_close((v.grad * v).sum(1), torch.zeros(30).double(), rtol=0, atol=1e-10)


def test_dino_head_with_batch_norm_and_its_first_values():
    head = DINOHead(64, 50, hidden=96, bottleneck=16, batch_norm=True)
    assert [type(module).__name__ for module in head.mlp] == 2 * ["Linear", "BatchNorm", "GELU"] + ["Linear"]
    assert float(head.mlp[0].weight.detach().std()) == pytest.approx(0.02, rel=0.05)
    assert float(head.last_layer.weight_v.detach().abs().max()) <= 0.25


def test_freezing_the_last_layer_by_dropping_its_gradients_leaves_it_alone():
    head = DINOHead(12, 30, hidden=16, bottleneck=8)
    before = {name: value.clone() for name, value in head.state_dict().items()}
    optimiser = torch.optim.AdamW(head.parameters(), lr=0.1, weight_decay=0.5)
    head(X.float()).square().sum().backward()
    for parameter in head.last_layer.parameters():
        parameter.grad = None
    optimiser.step()
    changed = {name for name, value in head.state_dict().items() if not torch.equal(value, before[name])}
    assert "mlp.0.weight" in changed
    assert not any(name.startswith("last_layer") for name in changed)


class Net(nn.Module):
    def __init__(self, extra: bool = False) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(12, 8), BatchNorm(8))
        if extra:
            self.predictor = nn.Linear(8, 8)


def pair() -> tuple[nn.Module, nn.Module]:
    with seeded(0, "student"):
        student = Net(extra=True).double()
    with seeded(1, "teacher"):
        teacher = teacher_of(Net().double())
    return student, teacher


def test_a_teacher_is_a_copy_without_gradients():
    student, _ = pair()
    teacher = teacher_of(student)
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert all(torch.equal(value, student.state_dict()[name]) for name, value in teacher.state_dict().items())
    assert all(parameter.requires_grad for parameter in student.parameters())
    follow(teacher, student, 0.5)
    assert not any(a.data_ptr() == b.data_ptr() for a, b in zip(teacher.parameters(), student.parameters(), strict=True))


def test_the_teacher_follows_in_every_parameter_by_name_but_not_in_its_buffers():
    student, teacher = pair()
    student.body(normal(30, 12, seed=2))
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    follow(teacher, student, 0.9)
    theirs = student.state_dict()
    for name, _ in teacher.named_parameters():
        torch.testing.assert_close(teacher.state_dict()[name], 0.9 * before[name] + 0.1 * theirs[name])
    for name, value in teacher.named_buffers():
        assert torch.equal(value, before[name])
        assert not torch.equal(value, theirs[name])


def test_momentum_one_freezes_the_teacher_and_zero_copies_the_student():
    student, teacher = pair()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    follow(teacher, student, 1.0)
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    follow(teacher, student, 0.0)
    theirs = dict(student.named_parameters())
    assert all(torch.equal(value, theirs[name]) for name, value in teacher.named_parameters())


def test_momentum_rises_to_one():
    assert momentum(0, 0.9) == pytest.approx(0.9)
    assert momentum(0.5, 0.9) == pytest.approx(0.95)
    assert momentum(1, 0.9) == 1.0


def test_batch_norm_is_the_frameworks():
    ours, theirs = BatchNorm(5).double(), nn.BatchNorm2d(5).double()
    for seed in range(3):
        x = normal(6, 5, 4, 3, seed=seed)
        torch.testing.assert_close(ours(x), theirs(x))
    assert torch.equal(ours.running_var, theirs.running_var)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_weights_made_under_a_seed_leave_the_global_generator_as_it_was():
    before = torch.get_rng_state()
    with seeded(0, "a"):
        first = torch.rand(4)
    with seeded(0, "b"):
        other = torch.rand(4)
    with seeded(0, "a"):
        again = torch.rand(4)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())
