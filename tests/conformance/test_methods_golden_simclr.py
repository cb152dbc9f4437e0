"""SimCLR and MoCo v3 as a whole against numbers from their published code."""

from __future__ import annotations

import pytest
import torch

from golden import assert_near, golden
from tacit.core.draws import Draws
from tacit.data.spec import Spec
from tacit.methods.method import Progress
from tacit.methods.moco_v3 import MoCoV3
from tacit.methods.simclr import SimCLR
from tacit.nn.encoder import Encoded, Encoder
from tacit.nn.norms import BatchNorm

GOLDEN = golden("simclr")
FIRST = Progress(0, 1, 1)


class Given(Encoder):
    """The features are the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width, self.depth = width, 0

    def forward(self, x, keep=None, draws=None, taps=(), attention=False) -> Encoded:
        return Encoded(x, x[:, None])


class Toy(Given):
    """`tanh(body)`, the golden file's backbone."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__(width)
        self.body = torch.nn.Linear(inputs, width)

    def forward(self, x, keep=None, draws=None, taps=(), attention=False) -> Encoded:
        return super().forward(torch.tanh(self.body(x)))


def draws(count: int) -> Draws:
    return Draws(0, 0, torch.arange(count))


@pytest.mark.parametrize(("reduction", "expected"), [("official", "loss"), ("paper", "loss_paper")])
def test_simclr_on_given_embeddings(reduction, expected):
    case = GOLDEN["ntxent"]
    hidden = case.inputs["hidden"].requires_grad_()
    count, width = len(hidden) // 2, hidden.shape[1]
    options = SimCLR.Options(temperature=case.hyper["temperature"], head_layers=0, reduction=reduction)
    simclr = SimCLR(options, Given(width), Spec("image", 3, (8, 8)), 8)
    terms = simclr({"view1": hidden[:count], "view2": hidden[count:]}, draws(count), FIRST)
    assert_near(terms.total, case.out[expected])
    if reduction == "official":
        assert_near(torch.autograd.grad(terms.total, hidden)[0], case.out["grad_hidden"])


def test_a_step_of_moco():
    case = GOLDEN["moco_step"]
    h = case.hyper
    base, copy, predictor = (case.part(prefix) for prefix in ("base_encoder.", "momentum_encoder.", "predictor."))
    features, inputs = base["body.weight"].shape
    options = MoCoV3.Options(
        temperature=h["temperature"],
        momentum=h["momentum"],
        head_width=len(base["fc.0.weight"]),
        head_out=len(base["fc.3.weight"]),
        projector_layers=2,
        predictor_norm=False,
    )
    moco = MoCoV3(options, Toy(inputs, features), Spec("image", 3, (8, 8)), 8).double()
    for module in moco.modules():
        if isinstance(module, BatchNorm):
            module.eps = h["bn_eps"]
    for prefix, weights in (("", base), ("teacher.", copy)):
        student, head = (moco.teacher, moco.teacher_head) if prefix else (moco.student, moco.head)
        for part, front in ((student, "body."), (head, "fc.")):
            own = {n.removeprefix("fc.") if front == "fc." else n: v for n, v in weights.items() if n.startswith(front)}
            assert {name for name, _ in part.named_parameters()} == set(own)
            part.load_state_dict({**part.state_dict(), **own})
    moco.predictor.load_state_dict({**moco.predictor.state_dict(), **predictor})

    views = {"view1": case.inputs["view1"], "view2": case.inputs["view2"]}
    moco.before_step(FIRST)
    terms = moco(views, draws(len(views["view1"])), FIRST)
    terms.total.backward()
    assert_near(terms.total, case.out["loss"])
    assert_near(moco.teacher.body.weight, case.out["momentum_body_weight"])
    assert_near(moco.student.body.weight.grad, case.out["grad_body_weight"])
    assert_near(moco.predictor[3].weight.grad, case.out["grad_predictor_last"])
    # What the golden file leaves out: every other parameter of the copy moved too, and no buffer was averaged.
    of_copy = {**dict(moco.teacher.named_parameters()), **{f"fc.{n}": p for n, p in moco.teacher_head.named_parameters()}}
    assert set(of_copy) == set(copy)
    for name, parameter in of_copy.items():
        assert parameter.grad is None
        assert_near(parameter, h["momentum"] * copy[name] + (1 - h["momentum"]) * base[name])
