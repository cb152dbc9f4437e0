"""DINO as a whole against a step of its published code."""

from __future__ import annotations

import math

import torch

from golden import assert_near, golden
from tacit.core.draws import Draws
from tacit.data.spec import Spec
from tacit.methods.dino import DINO
from tacit.methods.method import Progress
from tacit.nn.vit import VisionTransformer

CASE = golden("dino")["step"]


def method() -> DINO:
    h, weights, head = CASE.hyper, CASE.part("student.backbone."), CASE.part("student.head.")
    width, channels, patch, _ = weights["patch_embed.proj.weight"].shape
    side = patch * math.isqrt(weights["pos_embed"].shape[1] - 1)
    encoder = VisionTransformer(
        channels,
        (side, side),
        patch,
        width,
        depth=1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks.")),
        heads=h["heads"],
        mlp_ratio=len(weights["blocks.0.mlp.fc1.bias"]) / width,
        positions="learned",
        eps=h["ln_eps"],
        init="dino",
    )
    prototypes, bottleneck = head["last_layer.weight_v"].shape
    options = DINO.Options(
        prototypes=prototypes,
        head_width=len(head["mlp.0.bias"]),
        bottleneck=bottleneck,
        student_temperature=h["student_temp"],
        teacher_temperature=h["teacher_temp"],
        teacher_temperature_start=h["teacher_temp"],
        centre_momentum=h["center_momentum"],
        momentum=h["momentum"],
        local_crops=len(CASE.inputs["local"]),
        local_size=CASE.inputs["local"].shape[-1],
    )
    dino = DINO(options, encoder, Spec("image", channels, (side, side)), side).double()
    for prefix, module in {
        "student.backbone.": dino.student,
        "student.head.": dino.head,
        "teacher.backbone.": dino.teacher,
        "teacher.head.": dino.teacher_head,
    }.items():
        module.load_state_dict(CASE.part(prefix))
    dino.center.mean.copy_(CASE.inputs["center"])
    return dino


def test_a_step():
    dino, seen = method(), {}
    dino.head.register_forward_hook(lambda _, args, out: seen.update(student=out))
    dino.teacher_head.register_forward_hook(lambda _, args, out: seen.update(teacher=out))
    views = {"global1": CASE.inputs["global1"], "global2": CASE.inputs["global2"]}
    views |= {f"local{index + 1}": crop for index, crop in enumerate(CASE.inputs["local"])}
    first = Progress(0, 1, 1)
    terms = dino(views, Draws(0, 0, torch.arange(len(views["global1"]))), first)
    terms.total.backward()
    assert_near(dino.center.mean, CASE.inputs["center"], 0, 0)  # the loss was that of the centre before this step
    dino.after_step(first)
    for name, value in {
        "student_logits": seen["student"],
        "teacher_logits": seen["teacher"],
        "loss": terms.total,
        "center": dino.center.mean,
        "grad_patch_weight": dino.student.patch_embed.proj.weight.grad,
        "grad_pos_embed": dino.student.pos_embed.grad,
        "grad_last_v": dino.head.last_layer.weight_v.grad,
        "ema_patch_weight": dino.teacher.patch_embed.proj.weight,
    }.items():
        assert_near(value, CASE.out[name], 1e-6, 1e-6)
    # What the golden file leaves out: every other parameter of the teacher followed too.
    for part, module in (("backbone.", dino.teacher), ("head.", dino.teacher_head)):
        before, theirs = CASE.part(f"teacher.{part}"), CASE.part(f"student.{part}")
        for name, parameter in module.named_parameters():
            expected = CASE.hyper["momentum"] * before[name] + (1 - CASE.hyper["momentum"]) * theirs[name]
            assert_near(parameter, expected)
