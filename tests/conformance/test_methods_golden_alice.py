"""Alice as a whole against a step of its published code, from what the backbones said."""

from __future__ import annotations

import torch
from test_parts_alice import casa_of, head_of

from golden import assert_near, golden
from tacit.core.draws import Draws
from tacit.data.spec import Spec
from tacit.methods.alice import Alice, Seen
from tacit.methods.method import Progress
from tacit.nn.swin3d import Swin3D

ALICE = golden("alice")
CASE = ALICE["step"]
FIRST = Progress(0, 1, 1)


def method() -> Alice:
    """With the published heads and CASA, and any backbone that they might stand on."""
    h = CASE.hyper
    options = Alice.Options(
        prototypes=len(CASE.weights["student_head.last_layer.weight_v"]),
        student_temperature=h["student_temp"],
        patch_student_temperature=h["student_temp"],
        teacher_temperature=h["teacher_temp"],
        teacher_temperature_start=h["teacher_temp"],
        patch_teacher_temperature=h["teacher_patch_temp"],
        lambda_cls=h["lambda_cls"],
        lambda_patch=h["lambda_patch"],
        lambda_rec=h["lambda_recon"],
        partner="self",
        mask_patch=2,
    )
    alice = Alice(options, Swin3D(1, 4, (1, 1), (2, 2), (1, 2)), Spec("volume", 1, (4, 4, 4)), 4).double()
    alice.head, alice.casa = head_of(CASE.part("student_head.")), casa_of(CASE)
    alice.teacher_head = head_of(CASE.part("teacher_head."), teacher=True)
    return alice.train()


def tokens(map: torch.Tensor) -> torch.Tensor:
    return map.flatten(2).transpose(1, 2)


def test_a_step():
    alice, x = method(), {name: value.clone() for name, value in CASE.inputs.items()}
    encoder, decoder = x["student_encoder"].requires_grad_(), x["student_decoder"].requires_grad_()
    student = Seen(x["student_cls"], tokens(encoder), tokens(decoder))
    teacher = Seen(x["teacher_cls"], tokens(x["teacher_encoder"]), tokens(x["teacher_decoder"]))
    volumes = torch.cat([x["image_query"], x["image_anchor"]])
    terms = alice.loss(student, teacher, x["reconstruction"], volumes, torch.ones_like(volumes), None, FIRST)
    terms.total.backward()
    assert alice.head.last_layer2 is not None
    assert alice.casa is not None
    own, theirs = alice.places(student, teacher)
    for name, value in {
        "loss": terms.total,
        "cls": terms.parts["cls"],
        "patch": terms.parts["patch"],
        "recon": terms.parts["rec"],
        "aligned_student": own,
        "aligned_teacher": theirs,
        "grad_student_encoder": encoder.grad,
        "grad_student_decoder": decoder.grad,
        "grad_casa_query_weight": alice.casa.q.weight.grad,
        "grad_student_last_layer2_v": alice.head.last_layer2.weight_v.grad,
    }.items():
        assert_near(value, CASE.out[name], rtol=1e-8, atol=1e-12)
    assert (alice.center.mean == 0).all()  # the loss was that of the centres before this step


def test_both_centres_follow_after_the_step():
    case, alice = ALICE["center"], method()
    h, x = case.hyper, case.inputs
    alice.center.momentum, alice.center_patch.momentum = h["center_momentum"], h["center_patch_momentum"]
    alice.center.mean, alice.center_patch.mean = x["center"], x["center_patch"][0]
    alice.teacher_head.forward = lambda vectors: vectors
    alice.places = lambda student, teacher, draws: (student.encoder, teacher.encoder)
    alice.head.forward = lambda vectors: vectors
    said = Seen(x["teacher_cls"], x["teacher_patch"], x["teacher_patch"])
    none = torch.zeros(len(said.vectors), 1, 4, 4, 4, dtype=torch.float64)
    alice.loss(said, said, none, none, none, Draws(0, 0, torch.arange(len(said.vectors) // 2)), FIRST)
    alice.after_step(FIRST)
    assert_near(alice.center.mean, case.out["center"], rtol=1e-8, atol=1e-12)
    assert_near(alice.center_patch.mean[None], case.out["center_patch"], rtol=1e-8, atol=1e-12)
