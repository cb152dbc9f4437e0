"""The parts of CLIP against numbers from its published code."""

from __future__ import annotations

import pytest
import torch

from golden import assert_near, golden
from tacit.data.text.pack import pack
from tacit.evaluation.recall import recall
from tacit.evaluation.zero_shot import class_logits, classifier, top
from tacit.nn.text import TextTransformer
from tacit.nn.towers import ClipVisionTransformer, projection
from tacit.objectives.pairs import contrast, cosines, imitate, sigmoid_contrast, unit
from tacit.train.schedule import warmup_cosine

CLIP = golden("clip")
NAMES = {
    "transformer.resblocks.": "blocks.",
    "ln_1.": "norm1.",
    "ln_2.": "norm2.",
    "attn.in_proj_": "attn.qkv.",
    "attn.out_proj.": "attn.proj.",
    "mlp.c_fc.": "mlp.fc1.",
    "mlp.c_proj.": "mlp.fc2.",
    "ln_final.": "norm.",
    "ln_post.": "norm.",
    "ln_pre.": "norm_pre.",
    "conv1.": "patch_embed.proj.",
}
TABLES = {"positional_embedding": "pos_embed", "class_embedding": "cls_token"}


def named_as_here(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The published names and shapes of a tower's weights as the modules here have them; the projection is left out."""
    found = {}
    for name, value in weights.items():
        if name in TABLES:
            found[TABLES[name]] = value.reshape(1, -1, value.shape[-1])
        elif not name.endswith("proj") and name != "text_projection":
            for theirs, ours in NAMES.items():
                name = name.replace(theirs, ours)
            found[name] = value
    return found


def depth_of(weights: dict[str, torch.Tensor]) -> int:
    return len([name for name in weights if name.endswith("ln_1.weight")])


def into(weight: torch.Tensor) -> torch.nn.Linear:
    """A projection with the published weight `[w, D]`."""
    made = projection(*weight.shape).double()
    made.load_state_dict({"weight": weight.T})
    return made


def test_contrast_and_its_gradients():
    case = CLIP["loss"]
    image, text = (case.inputs[name].requires_grad_() for name in ("image", "text"))
    t = torch.tensor(case.hyper["log_scale"], dtype=torch.float64, requires_grad=True)
    both = cosines(unit(image), unit(text))
    loss = contrast(*both, t.exp())
    assert_near(t.exp() * both[0], case.out["logits_per_image"])
    assert_near(loss, case.out["loss"])
    for grad, name in zip(torch.autograd.grad(loss, [image, text, t]), ("image", "text", "log_scale"), strict=True):
        assert_near(grad, case.out[f"grad_{name}"])


def test_contrast_of_each_rank():
    case = CLIP["loss_local"]
    image, text, scale = case.inputs["image"], case.inputs["text"], case.hyper["scale"]
    everyone, rows = (image.flatten(0, 1), text.flatten(0, 1)), image.shape[1]
    losses = [
        contrast(*cosines(f, g, *everyone), scale, offset=rank * rows)
        for rank, (f, g) in enumerate(zip(image, text, strict=True))
    ]
    assert_near(torch.stack(losses), case.out["loss_per_rank"])
    assert_near(torch.stack(losses).mean(), case.out["loss_global"])
    assert_near(contrast(*cosines(*everyone), scale), case.out["loss_global"])


def test_sigmoid_contrast_and_its_gradient():
    case = CLIP["siglip"]
    image = case.inputs["image"].requires_grad_()
    loss = sigmoid_contrast(cosines(image, case.inputs["text"])[0], case.hyper["scale"], case.hyper["bias"])
    assert_near(loss, case.out["loss"])
    assert_near(torch.autograd.grad(loss, image)[0], case.out["grad_image"])


def test_distillation():
    case = CLIP["distill"]
    x, h = case.inputs, case.hyper
    student = cosines(x["student_image"], x["student_text"])
    teacher = cosines(x["teacher_image"], x["teacher_text"])
    assert_near(contrast(*student, h["student_scale"]), case.out["contrastive"])
    assert_near(imitate(*student, h["student_scale"], *teacher, h["teacher_scale"]), case.out["distill"])


def test_text_tower():
    case = CLIP["text_tower"]
    names, tokens = case.weights, case.inputs["tokens"]
    table, context = names["token_embedding.weight"], len(names["positional_embedding"])
    ratio = len(names["transformer.resblocks.0.mlp.c_fc.weight"]) / table.shape[1]
    tower = TextTransformer(len(table), context, table.shape[1], depth_of(names), case.hyper["heads"], mlp_ratio=ratio).double()
    tower.load_state_dict(named_as_here(names))
    features = into(names["text_projection"])(tower(tokens).pooled)
    assert_near(features, case.out["features"])
    wanted = tower.token_embedding.weight, tower.get_parameter("blocks.0.attn.qkv.weight")
    of_table, of_qkv = torch.autograd.grad((features * case.inputs["cotangent"]).sum(), wanted)
    assert_near(of_table, case.out["grad_token_embedding"])
    assert_near(of_qkv, case.out["grad_in_proj_0"])


def test_vision_tower():
    case = CLIP["vision_tower"]
    names, image = case.weights, case.inputs["image"].requires_grad_()
    width = len(names["class_embedding"])
    ratio = len(names["transformer.resblocks.0.mlp.c_fc.weight"]) / width
    shape = (image.shape[1], image.shape[2:], case.hyper["patch"], width, depth_of(names), case.hyper["heads"], ratio)
    tower = ClipVisionTransformer(*shape).double()
    tower.load_state_dict(named_as_here(names))
    features = into(names["proj"])(tower(image).pooled)
    assert_near(features, case.out["features"])
    grad = torch.autograd.grad((features * case.inputs["cotangent"]).sum(), image)[0]
    assert_near(grad, case.out["grad_image"])


def test_retrieval():
    case = CLIP["retrieval"]
    for direction, found in zip(("image_to_text", "text_to_image"), recall(**_renamed(case.inputs)), strict=True):
        assert torch.equal(found.ranks, case.out[f"{direction}_rank"])
        depths = [int(name.rpartition("_")[2]) for name in case.out if name.startswith(f"{direction}_R_at_")]
        assert depths
        for depth in depths:
            assert found.at(depth) == pytest.approx(case.out[f"{direction}_R_at_{depth}"].item())
        assert found.mean_rank == pytest.approx(case.out[f"{direction}_mean_rank"].item())
        assert found.median_rank == case.out[f"{direction}_median_rank"].item()


def _renamed(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {"images": inputs["image"], "captions": inputs["text"]}


def test_zero_shot():
    case = CLIP["zero_shot"]
    classes = classifier(case.inputs["prompt_features"])
    logits = class_logits(case.inputs["image_features"], classes)
    assert_near(classes, case.out["classifier"])
    assert_near(logits, case.out["logits"])
    assert top(logits, case.inputs["labels"]) == pytest.approx(case.out["top1"].item())


def test_schedule():
    """The rate of the update that is about to be done: its number, counted from 1, over the warm-up."""
    case = CLIP["schedule"]
    warmup, total, base = (case.hyper[name] for name in ("warmup", "total", "base_lr"))
    rates = [warmup_cosine(step + (step < warmup), warmup, total, base) for step in case.inputs["step"].tolist()]
    assert_near(torch.tensor(rates, dtype=torch.float64), case.out["lr"])


def test_packing():
    case = CLIP["pack_tokens"]
    h = case.hyper
    texts = [row[row >= 0].tolist() for row in case.inputs["ids"]]
    assert torch.equal(pack(texts, h["context"], h["sot"], h["eot"], h["pad"]), case.out["tokens"])
