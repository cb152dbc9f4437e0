"""The parts of Alice against numbers from its published code."""

from __future__ import annotations

import re
from functools import partial

import pytest
import torch

from golden import Case, assert_near, golden, moved
from tacit.nn.casa import CASA, AlignmentHead
from tacit.nn.ema import momentum
from tacit.objectives.alignment import half_square, same_view
from tacit.objectives.distil import cross_view, sharpen, teacher_temperature
from tacit.train.schedule import cosine, inclusive_warmup_cosine
from tacit.views.volume_crops import crop_around, descriptors, match
from tacit.views.volume_masks import hidden_of, hide_columns, spread

ALICE = golden("alice")
near = partial(assert_near, rtol=1e-8, atol=1e-12)


def terms(case: Case, student_cls, teacher_cls, student_patch, teacher_patch) -> dict[str, torch.Tensor]:
    """The weighted terms and their sum from logits; views lie one after the other."""
    h, inputs = case.hyper, case.inputs
    none = torch.zeros(1, teacher_cls.shape[-1], dtype=torch.float64)
    target = sharpen(teacher_cls, inputs.get("center", none), h["teacher_temp"])
    patch_target = sharpen(teacher_patch, inputs.get("center_patch", none[None]), h["teacher_patch_temp"])
    volumes = torch.cat([inputs["image_query"], inputs["image_anchor"]])
    made = {
        "cls": h["lambda_cls"] * cross_view(student_cls, target, h["student_temp"], views=2),
        "patch": h["lambda_patch"] * same_view(student_patch, patch_target, h["student_temp"]),
        "recon": h["lambda_recon"] * half_square(inputs["reconstruction"], volumes),
    }
    return made | {"loss": torch.stack(list(made.values())).sum()}


def test_loss_and_its_gradients():
    case = ALICE["loss"]
    names = ["student_cls", "student_patch", "reconstruction"]
    wanted = [case.inputs[name].requires_grad_() for name in names]
    logits = [case.inputs[name] for name in ("student_cls", "teacher_cls", "student_patch", "teacher_patch")]
    made = terms(case, *logits)
    for name, value in made.items():
        near(value, case.out[name])
    for name, gradient in zip(names, torch.autograd.grad(made["loss"], wanted), strict=True):
        near(gradient, case.out[f"grad_{name}"])


def test_both_centres():
    case = ALICE["center"]
    h, inputs = case.hyper, case.inputs
    near(moved(inputs["center"], inputs["teacher_cls"], h["center_momentum"]), case.out["center"])
    patch = moved(inputs["center_patch"][0], inputs["teacher_patch"], h["center_patch_momentum"])
    near(patch[None], case.out["center_patch"])


def test_schedules():
    case = ALICE["schedule"]
    h = case.hyper
    steps, warmup = h["epochs"] * h["steps_per_epoch"], h["warmup_epochs"] * h["steps_per_epoch"]
    columns = {
        "lr": [inclusive_warmup_cosine(i, warmup, steps, h["lr"], h["min_lr"]) for i in range(steps)],
        "weight_decay": [cosine(i / steps, h["weight_decay"], h["weight_decay_end"]) for i in range(steps)],
        "momentum": [momentum(i / steps, h["momentum"]) for i in range(steps)],
        "teacher_temp_per_epoch": [
            teacher_temperature(epoch, h["temp_warmup"], h["temp"], h["temp_warmup_epochs"])
            for epoch in range(h["temp_epochs"])
        ],
    }
    for name, values in columns.items():
        near(torch.tensor(values, dtype=torch.float64), case.out[name])


def test_mask_of_columns():
    case = ALICE["mask"]
    h, size = case.hyper, case.hyper["size"].tolist()
    grid = [side // h["mask_patch"] for side in size[:2]]
    mask = hide_columns(case.inputs["permutation"][None], grid, h["ratio"])
    assert hidden_of(len(case.inputs["permutation"]), h["ratio"]) == mask.sum() == case.out["masked_columns"]
    assert torch.equal(spread(mask, [side // h["model_patch"] for side in size])[0, 0].byte(), case.out["mask_grid"])
    assert torch.equal(spread(mask, size)[0, 0].byte(), case.out["mask_voxels"])


def test_crops_around_points():
    case = ALICE["crop"]
    points = case.inputs["points"]
    volumes = case.inputs["volume"].expand(len(points), 1, -1, -1, -1)
    assert torch.equal(crop_around(volumes, points, case.hyper["roi"].tolist())[:, 0], case.out["crops"])


def test_matching():
    """The arrays' maps are in (z, y, x) order, and their points in (x, y, z)."""
    case = ALICE["match"]
    h, inputs = case.hyper, case.inputs
    ratios = [h[f"norm_ratio_{who}"].flip(0)[None] for who in ("query", "key")]
    query, key = (descriptors(inputs[f"fine_{who}"], inputs[f"coarse_{who}"]) for who in ("query", "key"))
    points, sizes = inputs["points_xyz"].flip(1)[None], h["shape_key_xyz"].flip(0)[None]
    found, score = match(query, key, points, *ratios, h["stride"], sizes)
    assert torch.equal(found[0].flip(1), case.out["matched_xyz"])
    near(score[0], case.out["score"])


def head_of(weights: dict[str, torch.Tensor], teacher: bool = False) -> AlignmentHead:
    hidden, width = weights["mlp.0.weight"].shape
    count, bottleneck = weights["last_layer.weight_v"].shape
    head = AlignmentHead(width, weights["mlp3.weight"].shape[1], weights["mlp4.weight"].shape[1], count, hidden, bottleneck)
    head = (head.teacher() if teacher else head).double()
    head.load_state_dict(weights)
    return head


NAMES = {
    r"MH_attn\.w_([qkv])s": r"\1",
    r"MH_attn\.fc": "proj",
    r"MH_attn\.layer_norm": "norm1",
    r"pos_ffn\.w_([12])": r"fc\1",
    r"pos_ffn\.layer_norm": "norm2",
}


def casa_of(case: Case) -> CASA:
    weights = case.part("casa.Cross_Att.")
    for theirs, ours in NAMES.items():
        weights = {re.sub(theirs, ours, name): value for name, value in weights.items()}
    hidden, width = weights["fc1.weight"].shape
    casa = CASA(width, case.hyper["heads"], case.hyper["d_k"], hidden).double()
    casa.load_state_dict(weights)
    return casa


@pytest.mark.parametrize("view_by_view", [False, True])
def test_step_from_its_parts(view_by_view):
    case = ALICE["step"]
    student, teacher = head_of(case.part("student_head.")), head_of(case.part("teacher_head."), teacher=True)
    casa = casa_of(case)
    x = {name: value.clone() for name, value in case.inputs.items()}
    encoder, decoder = x["student_encoder"].requires_grad_(), x["student_decoder"].requires_grad_()

    def tokens(map: torch.Tensor) -> torch.Tensor:
        return map.flatten(2).transpose(1, 2)

    def aligned(query: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        if not view_by_view:
            return casa(query, keys)
        return torch.cat([casa(q, k) for q, k in zip(query.chunk(2), keys.chunk(2), strict=True)])

    made = {
        "student_cls": student(x["student_cls"]),
        "student_encoder": student.of_encoder(tokens(encoder)),
        "student_decoder": student.of_decoder(tokens(decoder)),
        "teacher_cls": teacher(x["teacher_cls"]),
        "teacher_decoder": teacher.of_decoder(tokens(x["teacher_decoder"])),
    }
    made["aligned_student"] = aligned(made["student_encoder"], made["student_decoder"])
    made["aligned_teacher"] = aligned(made["student_encoder"], made["teacher_decoder"])
    made |= terms(case, made["student_cls"], made["teacher_cls"], made["aligned_student"], made["aligned_teacher"])
    made["loss"].backward()
    assert student.last_layer2 is not None
    made |= {
        "grad_student_encoder": encoder.grad,
        "grad_student_decoder": decoder.grad,
        "grad_casa_query_weight": casa.q.weight.grad,
        "grad_student_last_layer2_v": student.last_layer2.weight_v.grad,
    }
    assert set(made) == set(case.out)
    for name, value in made.items():
        near(value, case.out[name])
