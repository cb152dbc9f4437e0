"""The parts of DINO against numbers from its published code."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from golden import Case, assert_near, golden, moved
from tacit.nn.ema import follow, momentum
from tacit.nn.heads import DINOHead
from tacit.nn.positions import resample
from tacit.nn.vit import VisionTransformer
from tacit.objectives.distil import cross_view, sharpen, teacher_temperature
from tacit.train.optimise import clip_each
from tacit.train.schedule import cosine, inclusive_warmup_cosine

DINO = golden("dino")


def head_of(weights: dict[str, torch.Tensor]) -> DINOHead:
    hidden, width = weights["mlp.0.weight"].shape
    count, bottleneck = weights["last_layer.weight_v"].shape
    head = DINOHead(width, count, hidden, bottleneck).double()
    head.load_state_dict(weights)
    return head


def test_loss_centre_and_gradient():
    case = DINO["loss"]
    h = case.hyper
    student, teacher, center = case.inputs["student"].requires_grad_(), case.inputs["teacher"], case.inputs["center"]
    loss = cross_view(student, sharpen(teacher, center, h["teacher_temp"]), h["student_temp"], h["ncrops"])
    assert_near(loss, case.out["loss"])
    assert_near(torch.autograd.grad(loss, student)[0], case.out["grad_student"])
    assert_near(moved(center, teacher, h["center_momentum"]), case.out["center"])


def test_head_and_its_gradients():
    case = DINO["head"]
    head = head_of(case.weights)
    logits = head(case.inputs["x"])
    (logits * case.inputs["cotangent"]).sum().backward()
    assert_near(logits, case.out["logits"])
    assert_near(head.mlp[0].weight.grad, case.out["grad_first_weight"])
    assert_near(head.last_layer.weight_v.grad, case.out["grad_last_v"])


def test_schedules():
    case = DINO["schedule"]
    h = case.hyper
    steps, warmup = h["epochs"] * h["iters_per_epoch"], h["warmup_epochs"] * h["iters_per_epoch"]
    columns = {
        "lr": [inclusive_warmup_cosine(i, warmup, steps, h["lr"], h["min_lr"]) for i in range(steps)],
        "weight_decay": [cosine(i / steps, h["wd"], h["wd_end"]) for i in range(steps)],
        "momentum": [momentum(i / steps, h["momentum"]) for i in range(steps)],
        "teacher_temp_per_epoch": [
            teacher_temperature(e, h["teacher_temp_start"], h["teacher_temp"], h["teacher_temp_warmup"])
            for e in range(h["epochs"])
        ],
    }
    for name, values in columns.items():
        assert_near(torch.tensor(values, dtype=torch.float64), case.out[name])


def test_clipping_by_tensor():
    case = DINO["clip"]
    parameters = {name: nn.Parameter(torch.zeros_like(grad)) for name, grad in case.inputs.items()}
    for name, parameter in parameters.items():
        parameter.grad = case.inputs[name].clone()
    clip_each(parameters.values(), case.hyper["clip"])
    for name, parameter in parameters.items():
        assert parameter.grad is not None
        assert_near(parameter.grad, case.out[name])


def test_positions_at_another_size():
    case = DINO["pos_interp"]
    table = case.inputs["pos_embed"]
    old, new = math.isqrt(table.shape[1] - 1), case.hyper["image_size"] // case.hyper["patch"]
    assert_near(resample(table, (old, old), (new, new), offset=0.1), case.out["pos_embed"], 0, 1e-6)


class Network(nn.Module):
    """Backbone and head, both with the published names."""

    def __init__(self, case: Case, who: str) -> None:
        super().__init__()
        weights = case.part(f"{who}.backbone.")
        width, channels, patch, _ = weights["patch_embed.proj.weight"].shape
        side = patch * math.isqrt(weights["pos_embed"].shape[1] - 1)
        self.backbone = VisionTransformer(
            channels,
            (side, side),
            patch,
            width,
            depth=1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks.")),
            heads=case.hyper["heads"],
            mlp_ratio=len(weights["blocks.0.mlp.fc1.bias"]) / width,
            positions="learned",
            eps=case.hyper["ln_eps"],
            init="dino",
        ).double()
        self.backbone.load_state_dict(weights)
        self.head = head_of(case.part(f"{who}.head."))


def test_step_from_its_parts():
    case = DINO["step"]
    h = case.hyper
    student, teacher = Network(case, "student"), Network(case, "teacher").requires_grad_(False)
    large, small = torch.cat([case.inputs["global1"], case.inputs["global2"]]), case.inputs["local"].flatten(0, 1)
    features = torch.cat([student.backbone(large).pooled, student.backbone(small).pooled])
    student_logits, teacher_logits = student.head(features), teacher.head(teacher.backbone(large).pooled)
    target = sharpen(teacher_logits, case.inputs["center"], h["teacher_temp"])
    loss = cross_view(student_logits, target, h["student_temp"], views=2 + len(case.inputs["local"]))
    loss.backward()
    follow(teacher, student, h["momentum"])
    for name, value in {
        "student_logits": student_logits,
        "teacher_logits": teacher_logits,
        "loss": loss,
        "center": moved(case.inputs["center"], teacher_logits, h["center_momentum"]),
        "grad_patch_weight": student.backbone.patch_embed.proj.weight.grad,
        "grad_pos_embed": student.backbone.pos_embed.grad,
        "grad_last_v": student.head.last_layer.weight_v.grad,
        "ema_patch_weight": teacher.backbone.patch_embed.proj.weight,
    }.items():
        assert value is not None
        assert_near(value, case.out[name], 1e-6, 1e-6)


@pytest.mark.parametrize("gain", [0.5, 3.0])
def test_a_gain_scales_the_logits_of_its_prototype(gain):
    """Every gain in the golden file is 1."""
    head, x = head_of(DINO["head"].weights), DINO["head"].inputs["x"]
    before = head(x)
    head.last_layer.weight_g.data[2] = gain
    expected = before.clone()
    expected[:, 2] *= gain
    assert_near(head(x), expected.detach())
