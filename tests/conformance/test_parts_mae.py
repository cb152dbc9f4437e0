"""The parts of MAE against numbers from its published code."""

from __future__ import annotations

import pytest
import torch

from golden import assert_near, golden
from tacit.nn.patches import patchify, unpatchify
from tacit.nn.positions import resample, sincos
from tacit.nn.vit import VisionTransformer
from tacit.objectives.reconstruct import masked_mse, normalised
from tacit.train.optimise import build, groups
from tacit.train.schedule import scaled, warmup_cosine
from tacit.views.masks import random_keep

MAE = golden("mae")


def test_masking():
    case = MAE["masking"]
    keep, mask, restore = random_keep(case.inputs["noise"], case.hyper["mask_ratio"])
    assert torch.equal(keep, case.out["ids_keep"])
    assert torch.equal(restore, case.out["ids_restore"])
    assert torch.equal(mask, case.out["mask"])
    x = case.inputs["x"]
    assert torch.equal(x.gather(1, keep[..., None].expand(-1, -1, x.shape[-1])), case.out["x_visible"])


def test_patchify():
    case = MAE["patchify"]
    images, patch = case.inputs["images"], case.hyper["patch_size"]
    assert torch.equal(patchify(images, patch), case.out["patches"])
    assert torch.equal(unpatchify(case.out["patches"], patch, [side // patch for side in images.shape[2:]]), images)


@pytest.mark.parametrize("norm", [0, 1])
def test_loss_and_its_gradient(norm):
    case = MAE["loss"]
    target = patchify(case.inputs["images"], case.hyper["patch_size"])
    prediction = case.inputs["pred"].requires_grad_()
    loss = masked_mse(prediction, normalised(target) if norm else target, case.inputs["mask"])
    assert_near(loss, case.out[f"loss_norm{norm}"])
    assert_near(torch.autograd.grad(loss, prediction)[0], case.out[f"grad_pred_norm{norm}"])


def test_positions():
    case = MAE["pos_embed"]
    grid = (case.hyper["grid"], case.hyper["grid"])
    table = torch.cat([torch.zeros(1, case.hyper["dim"]), sincos(case.hyper["dim"], grid)])
    assert_near(table, case.out["pos_embed"], rtol=0, atol=1e-6)
    encoder = VisionTransformer(3, [2 * side for side in grid], patch=2, width=case.hyper["dim"], depth=1, heads=1)
    assert torch.equal(encoder.pos_embed[0], table)


def test_positions_at_another_size():
    case = MAE["interpolate_pos_embed"]
    old, new = case.hyper["old_grid"], case.hyper["new_grid"]
    assert_near(resample(case.inputs["pos_embed"], (old, old), (new, new)), case.out["pos_embed"], rtol=0, atol=1e-6)


def test_learning_rate():
    case = MAE["lr_schedule"]
    h = case.hyper
    base = scaled(h["base_lr"], h["batch_size"])
    rates = [warmup_cosine(e, h["warmup_epochs"], h["epochs"], base, h["min_lr"]) for e in case.inputs["epoch"].tolist()]
    assert_near(torch.tensor(rates, dtype=torch.float64), case.out["lr"])


def test_lars():
    case = MAE["lars"]
    h = case.hyper
    weight, bias = torch.nn.Parameter(case.inputs["weight"]), torch.nn.Parameter(case.inputs["bias"])
    made = groups([("weight", weight), ("bias", bias)], lambda _, p: p.ndim > 1, h["weight_decay"])
    optimiser = build("lars", made, h["lr"], momentum=h["momentum"], trust=h["trust_coefficient"])
    for step, (of_weight, of_bias) in enumerate(zip(case.inputs["grad_weight"], case.inputs["grad_bias"], strict=True)):
        weight.grad, bias.grad = of_weight.clone(), of_bias.clone()
        optimiser.step()
        assert_near(weight, case.out["weight_after"][step])
        assert_near(bias, case.out["bias_after"][step])


def test_encoder_on_visible_patches():
    case = MAE["forward"]
    h, names = case.hyper, MAE["forward"].weights
    images = case.inputs["images"]
    encoder = VisionTransformer(
        images.shape[1],
        images.shape[2:],
        h["patch_size"],
        h["embed_dim"],
        h["depth"],
        h["num_heads"],
        mlp_ratio=len(names["blocks.0.mlp.fc1.bias"]) / h["embed_dim"],
        eps=h["norm_eps"],
    ).double()
    encoder.load_state_dict({name: names[name] for name in encoder.state_dict()})
    hidden = random_keep(case.inputs["noise"], h["mask_ratio"])
    seen = encoder(images, keep=hidden.keep)
    assert seen.prefix is not None
    assert_near(torch.cat([seen.prefix, seen.tokens], dim=1), case.out["latent"], rtol=1e-8)
    assert torch.equal(hidden.mask, case.out["mask"])
    assert torch.equal(seen.pooled, seen.prefix[:, 0])
