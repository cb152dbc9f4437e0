"""The parts of ChAda-ViT against numbers from its published code."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from golden import Case, assert_near, golden, moved
from tacit.nn.channel_vit import ChannelViT, of_true_channels, visible
from tacit.nn.ema import follow
from tacit.nn.heads import DINOHead
from tacit.nn.masked_blocks import PostNormBlock
from tacit.nn.positions import resample
from tacit.objectives.distil import cross_view, sharpen, teacher_temperature
from tacit.train.schedule import cosine
from tacit.views.channels import present

CHADA = golden("chada-vit")
NAMES = {
    "token_learner.": "patch_embed.",
    "self_attn.in_proj_": "attn.qkv.",
    "self_attn.out_proj.": "attn.proj.",
    "linear1.": "mlp.fc1.",
    "linear2.": "mlp.fc2.",
}


def renamed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Published names to ours."""
    ours = {}
    for name, weight in weights.items():
        for theirs, own in NAMES.items():
            name = name.replace(theirs, own)
        ours[name] = weight[0] if name == "pos_embed" else weight
    return ours


def padded(channels: Tensor, counts: Tensor, most: int) -> Tensor:
    """Channels of all images one after another `[sum C, 1, H, W]` -> values and presence `[B, 2, most, H, W]`."""
    x = channels.new_zeros(len(counts), 2, most, *channels.shape[2:])
    x[:, 0][present(counts, most)] = channels[:, 0]
    x[:, 1][present(counts, most)] = 1
    return x


def encoder_of(case: Case) -> ChannelViT:
    """The whole encoder, or its tokenizer (with no weights of blocks) with one block for form's sake."""
    h, weights = case.hyper, renamed(case.weights)
    made = ChannelViT(
        1,
        [h["max_number_channels"], h["img_size"], h["img_size"]],
        h["patch_size"],
        weights["cls_token"].shape[-1],
        depth=h.get("depth", 1),
        heads=h.get("num_heads", 1),
        hidden=h.get("dim_feedforward", 1),
    ).double()
    missing, unexpected = made.load_state_dict(weights, strict=False)
    assert not unexpected
    assert not missing or "norm.weight" not in weights
    for norm in [part for part in made.modules() if isinstance(part, torch.nn.LayerNorm)]:
        norm.eps = h.get("final_eps" if norm is made.norm else "block_eps", norm.eps)
    return made


def input_of(case: Case, tokens: int) -> tuple[Tensor, Tensor]:
    """The images, padded as those of the file are, and their counts."""
    counts = case.inputs["num_channels"]
    patches = (case.inputs["x"].shape[-1] // case.hyper["patch_size"]) ** 2
    return padded(case.inputs["x"], counts, (tokens - 1) // patches), counts


def test_tokens_and_what_is_padding():
    case = CHADA["tokenize"]
    x, counts = input_of(case, case.out["tokens"].shape[1])
    patches = (case.out["tokens"].shape[1] - 1) // x.shape[2]
    there = present(counts, x.shape[2]).repeat_interleave(patches, dim=1)
    assert_near(encoder_of(case).tokenize(x[:, :1], None, there), case.out["tokens"])
    assert torch.equal(~visible(there, None)[:, 0, 0], case.out["padding_mask"])


def test_encoder_its_attention_and_gradients():
    case = CHADA["encoder"]
    x, counts = input_of(case, case.out["attention_last"].shape[-1])
    model = encoder_of(case)
    said = model(x, attention=True)
    assert said.attention is not None
    assert_near(said.pooled, case.out["cls"])
    assert_near(of_true_channels(said.tokens, present(counts, x.shape[2])), case.out["tokens"])
    assert_near(said.attention, case.out["attention_last"])
    (model(x).pooled * case.inputs["probe"]).sum().backward()
    for name, gradient in {
        "grad_channel_token": model.get_parameter("channel_token").grad,
        "grad_proj_weight": model.patch_embed.proj.weight.grad,
        "grad_norm1": model.get_parameter("blocks.0.norm1.weight").grad,
    }.items():
        assert gradient is not None
        assert_near(gradient, case.out[name])
    assert model.pos_embed.grad is not None
    assert_near(model.pos_embed.grad[None], case.out["grad_pos_embed"])


def test_encoder_on_no_more_channels_than_the_batch_has():
    case = CHADA["encoder"]
    counts = case.inputs["num_channels"]
    said = encoder_of(case)(padded(case.inputs["x"], counts, int(counts.max())))
    assert_near(said.pooled, case.out["cls"])


def test_block():
    case = CHADA["block"]
    h = case.hyper
    x = case.inputs["x"]
    block = PostNormBlock(x.shape[-1], h["num_heads"], h["dim_feedforward"], eps=h["eps"]).double()
    block.load_state_dict(renamed(case.weights))
    seen = ~case.inputs["padding_mask"][:, None, None]
    assert_near(block(x, seen=seen), case.out["y"])
    assert_near(block.with_map(x, seen=seen)[0], case.out["y"])


def test_positions_at_another_size():
    case = CHADA["pos_interp"]
    table = case.inputs["pos_embed"][0]
    old, new = math.isqrt(table.shape[1] - 1), case.hyper["image_size"] // case.hyper["patch_size"]
    assert_near(resample(table, (old, old), (new, new), offset=0.1)[None, :, 1:], case.out["pos"], 0, 1e-6)


def test_dino_head():
    case = CHADA["dino_head"]
    h = case.hyper
    features = case.inputs["features"]
    head = DINOHead(features.shape[1], h["num_prototypes"], h["hidden_dim"], h["bottleneck_dim"]).double()
    head.load_state_dict(case.weights)
    assert_near(head(features), case.out["logits"])


def test_dino_loss_its_gradient_centre_and_temperatures():
    case = CHADA["dino_loss"]
    h = case.hyper
    temperatures = [
        teacher_temperature(epoch, h["warmup_teacher_temp"], h["teacher_temp"], h["warmup_epochs"])
        for epoch in range(h["epochs"])
    ]
    assert_near(torch.tensor(temperatures, dtype=torch.float64), case.out["teacher_temp_schedule"])
    student, teacher, center = case.inputs["student"].requires_grad_(), case.inputs["teacher"], case.inputs["center"]
    loss = cross_view(student, sharpen(teacher, center, temperatures[h["epoch"]]), h["student_temp"], views=2)
    assert_near(loss, case.out["loss"])
    assert_near(torch.autograd.grad(loss, student)[0], case.out["grad_student"])
    assert_near(moved(center, teacher, h["center_momentum"]), case.out["center_after"])


def test_momentum_and_the_teacher_that_follows():
    case = CHADA["ema"]
    h = case.hyper
    tau = cosine(h["step"] / h["max_steps"], h["base_tau"], h["final_tau"])
    assert_near(torch.tensor(tau, dtype=torch.float64), case.out["tau"])
    teacher, student = (torch.nn.ParameterList([case.inputs[name]]) for name in ("target", "online"))
    follow(teacher, student, tau)
    assert_near(teacher[0], case.out["target_after"])
