"""The parts of Mod-X against numbers from its published code."""

from __future__ import annotations

import torch

from golden import Case, assert_near, golden
from tacit.data.phases import bounds
from tacit.evaluation.angles import deviation, rotation, topology_change
from tacit.evaluation.recall import Found, recall
from tacit.objectives.pairs import MOD_X_CEILING, align, clamp_scale, contrast, cosines, screen, unit
from tacit.train.optimise import build, groups
from tacit.train.schedule import warmup_cosine

MOD_X = golden("mod-x")


def terms(image, text, image_old, text_old, t, alpha) -> dict[str, torch.Tensor]:
    """The whole loss on one device, from raw features and the trained t."""
    new, old = cosines(unit(image), unit(text)), cosines(unit(image_old), unit(text_old))
    kept = [screen(each) for each in old]
    of_image, of_text = (align(*each) for each in zip(old, new, kept, strict=True))
    contrastive, together = contrast(*new, t.exp()), (of_image + of_text) / 2
    return {
        "contrastive": contrastive,
        "align_image": of_image,
        "align_text": of_text,
        "align": together,
        "total": contrastive + alpha * together,
        "kept_image": kept[0],
        "kept_text": kept[1],
    }


def trained(case: Case) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.tensor(case.hyper["log_scale"], dtype=torch.float64))


def test_screening():
    case = MOD_X["screen"]
    old, new = case.inputs["old"], case.inputs["new"]
    kept = screen(old)
    assert torch.equal(kept, case.out["kept"])
    assert_near(torch.where(kept[:, None], old, new), case.out["screened"])


def test_loss_and_its_gradients():
    case = MOD_X["loss"]
    features, t = {name: value.requires_grad_() for name, value in case.inputs.items()}, trained(case)
    said = terms(**features, t=t, alpha=case.hyper["alpha"])
    for name, value in said.items():
        assert_near(value, case.out[name])
    grads = torch.autograd.grad(said["total"], [*features.values(), t], allow_unused=True)
    found = dict(zip([*features, "log_scale"], grads, strict=True))
    for name in ("image", "text", "log_scale"):
        assert_near(found[name], case.out[f"grad_{name}"])
    assert found["image_old"] is None
    assert found["text_old"] is None


def test_a_step_from_its_parts():
    case = MOD_X["step"]
    h, x = case.hyper, case.inputs
    image, text, t = *(torch.nn.Parameter(case.weights[name]) for name in ("w_image", "w_text")), trained(case)
    old = x["image_input"] @ case.weights["w_image_old"].T, x["text_input"] @ case.weights["w_text_old"].T
    said = terms(x["image_input"] @ image.T, x["text_input"] @ text.T, *old, t, h["alpha"])
    said["total"].backward()
    for name in ("total", "kept_image", "kept_text"):
        assert_near(said[name], case.out[name])
    assert_near(image.grad, case.out["grad_w_image"])
    assert_near(text.grad, case.out["grad_w_text"])
    made = groups([("image", image), ("text", text), ("t", t)], lambda *_: True, h["weight_decay"])
    build("adamw", made, h["lr"], betas=(0.9, 0.999), eps=h["eps"]).step()
    clamp_scale(t, MOD_X_CEILING)
    assert_near(image, case.out["w_image_after"])
    assert_near(text, case.out["w_text_after"])
    assert_near(t, case.out["log_scale_after"])


def test_clamp():
    case = MOD_X["clamp"]
    clamp_scale(t := case.inputs["log_scale"].clone(), MOD_X_CEILING)
    assert_near(t, case.out["clamped"])


def test_schedule():
    case = MOD_X["schedule"]
    rates = [warmup_cosine(step, case.hyper["warmup"], case.hyper["total"], 1.0) for step in case.inputs["step"].tolist()]
    assert_near(torch.tensor(rates, dtype=torch.float64), case.out["multiplier"])


def test_phases():
    case = MOD_X["phases"]
    assert bounds(case.hyper["n"], case.hyper["phases"]) == case.out["bounds"].tolist()


def test_diagnostics():
    case = MOD_X["diagnostics"]
    x, out = case.inputs, case.out
    for side in ("image", "text"):
        old, new = x[f"{side}_old"], x[f"{side}_new"]
        assert_near(rotation(old, new), out[f"rotation_{side}"], rtol=1e-6, atol=1e-8)
        assert_near(topology_change(old, new), out[f"topology_change_{side}"], rtol=1e-6, atol=1e-8)
    between = deviation(x["image_old"], x["image_new"], x["text_old"], x["text_new"])
    assert_near(between, out["deviation"], rtol=1e-6, atol=1e-8)


def test_recall():
    case = MOD_X["recall"]
    images, captions = case.inputs["images"], case.inputs["captions"]
    owner = torch.arange(len(images)).repeat_interleave(len(captions) // len(images))
    for direction, found in zip(("i2t", "t2i"), recall(images, captions, owner), strict=True):
        assert torch.equal(found.ranks, case.out[f"{direction}_rank"].long())
        assert_near(in_per_cent(found), case.out[direction])


def in_per_cent(found: Found) -> torch.Tensor:
    shares = [100 * found.at(depth) for depth in (1, 5, 10)]
    return torch.tensor([*shares, found.median_rank, found.mean_rank], dtype=torch.float64)
