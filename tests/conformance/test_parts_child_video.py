"""The parts of masked autoencoding of a child's video against numbers from its published code."""

from __future__ import annotations

import math

import pytest
import torch

from golden import Case, assert_near, golden
from tacit.data.window import Stretch
from tacit.nn.image_decoder import ImageDecoder
from tacit.nn.patches import patchify
from tacit.nn.positions import sincos
from tacit.nn.spacetime import predicted_frames, tubelets, untubelets
from tacit.nn.video_decoder import VideoDecoder
from tacit.nn.video_vit import VideoTransformer
from tacit.nn.vit import VisionTransformer
from tacit.objectives.reconstruct import masked_mse, normalised
from tacit.views.masks import Hidden, random_keep
from tacit.views.masks_time import center_ranks, temporal_ranks

CHILD = golden("child-video")


def target_of(case: Case, clips: torch.Tensor) -> torch.Tensor:
    h = case.hyper
    index, held = predicted_frames(h["num_frames"], h["t_patch_size"], h["pred_t_dim"])
    return tubelets(clips[:, :, index], held, h["patch_size"])


def test_tubelets_are_cut_and_put_back():
    case = CHILD["patchify"]
    h, clips = case.hyper, case.inputs["clips"]
    index, held = predicted_frames(h["num_frames"], h["t_patch_size"], h["pred_t_dim"])
    target = target_of(case, clips)
    assert torch.equal(index, case.out["frame_index"])
    assert torch.equal(target, case.out["target"])
    grid = (h["num_frames"] // h["t_patch_size"], *(side // h["patch_size"] for side in clips.shape[3:]))
    error = (untubelets(target, held, h["patch_size"], grid) - clips[:, :, index]).abs().max()
    assert error == case.out["unpatchified_max_abs_error"] == 0


def test_random_mask():
    case = CHILD["random_mask"]
    keep, mask, restore = random_keep(case.inputs["noise"], case.hyper["mask_ratio"])
    assert keep.shape[1] == case.out["len_keep"]
    assert torch.equal(keep, case.out["ids_keep"])
    assert torch.equal(restore, case.out["ids_restore"])
    assert torch.equal(mask, case.out["mask"].to(mask.dtype))


@pytest.mark.parametrize(("name", "ranks"), [("center_mask", center_ranks), ("temporal_mask", temporal_ranks)])
def test_structured_masks(name, ranks):
    case = CHILD[name]
    keep, mask, _ = random_keep(ranks(case.hyper["num_tokens"])[None], case.hyper["mask_ratio"])
    assert torch.equal(mask[0], case.out["mask"].to(mask.dtype))
    assert torch.equal(keep[0].sort().values, case.out["ids_keep_sorted"])


@pytest.mark.parametrize("suffix", ["", "_norm_pix"])
def test_loss_and_its_gradient(suffix):
    case = CHILD["loss"]
    target, mask = target_of(case, case.inputs["clips"].double()), case.inputs["mask"]
    target = normalised(target, case.hyper["eps"]) if suffix else target
    prediction = case.inputs["pred"].double().requires_grad_()
    loss = masked_mse(prediction, target, mask)
    assert_near(loss, case.out[f"loss{suffix}"])
    assert_near((prediction - target).square().mean(-1), case.out[f"per_patch{suffix}"])
    (gradient,) = torch.autograd.grad(loss, prediction)
    assert_near(gradient.sum((1, 2)), case.out[f"grad_pred_sum{suffix}"])
    assert not gradient[mask == 0].any()


def test_frames_of_even_windows():
    """The published test windows, from the rule for random ones with the starts that the file states."""
    case = CHILD["frame_sampling"]
    h, frames = case.hyper, case.hyper["video_frames"]
    stride = h["sampling_rate"] * h["video_fps"] / h["target_fps"]
    span, room = stride * h["num_frames"], max(frames - stride * h["num_frames"], 0)
    for place, ((start, end), indices) in enumerate(zip(case.out["start_end"].tolist(), case.out["indices_test"], strict=True)):
        assert start == (place * (room // (h["num_clips"] - 1)) if h["num_clips"] > 1 else room // 2)
        assert math.isclose(end - start, span - 1)
        # The least draw that begins there, whichever way its product with the room is rounded.
        (found,) = Stretch(h["num_frames"], stride)([frames], [math.nextafter(start / room, 1) if room else 0.0])
        assert found.tolist() == indices.tolist()


def ours(weights: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The weights of encoder and decoder under our names: q, k and v in one, tables of positions in a module of theirs."""
    split: tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]] = ({}, {})
    for name, value in weights.items():
        if ".attn.k." in name or ".attn.v." in name:
            continue
        if ".attn.q." in name:
            value = torch.cat([weights[name.replace(".q.", f".{part}.")] for part in "qkv"])
        for old, new in (("attn.q.", "attn.qkv."), ("pos_embed_", "pos_embed."), ("pos_embed.class", "pos_embed.cls")):
            name = name.replace(old, new)
        in_decoder = name.startswith("decoder_") or name == "mask_token"
        split[in_decoder][name.removeprefix("decoder_")] = value
    return split


class Tiny:
    """Encoder, decoder and step of the file's network."""

    def __init__(self) -> None:
        self.case = case = CHILD["e2e"]
        h, weights, clips = case.hyper, case.weights, case.inputs["clips"]
        self.clips = clips.double()
        self.encoder = VideoTransformer(
            clips.shape[1],
            clips.shape[2:],
            h["t_patch_size"],
            h["patch_size"],
            h["embed_dim"],
            h["depth"],
            h["num_heads"],
            mlp_ratio=len(weights["blocks.0.mlp.fc1.bias"]) / h["embed_dim"],
            eps=h["ln_eps"],
        ).double()
        self.decoder = VideoDecoder(
            h["embed_dim"],
            h["decoder_embed_dim"],
            h["decoder_depth"],
            h["decoder_num_heads"],
            self.encoder.grid(clips.shape[2:]),
            len(weights["decoder_pred.bias"]),
            mlp_ratio=len(weights["decoder_blocks.0.mlp.fc1.bias"]) / h["decoder_embed_dim"],
            eps=h["ln_eps"],
        ).double()
        for module, given in zip((self.encoder, self.decoder), ours(weights), strict=True):
            module.load_state_dict(given)
        self.target = target_of(case, self.clips)
        if h["norm_pix"]:
            self.target = normalised(self.target)

    def step(self, clips: torch.Tensor, hidden: Hidden) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        latent = self.encoder(clips, keep=hidden.keep).tokens
        prediction = self.decoder(latent, hidden.restore)
        return masked_mse(prediction, self.target, hidden.mask), latent, prediction


def test_a_whole_step_and_its_gradients():
    tiny = Tiny()
    case, clips = tiny.case, tiny.clips.requires_grad_()
    hidden = random_keep(case.inputs["noise"], case.hyper["mask_ratio"])
    tiny.target = tiny.target.detach()
    loss, latent, prediction = tiny.step(clips, hidden)
    loss.backward()
    for name, value in {
        "loss": loss,
        "latent": latent,
        "pred": prediction[:, ::3],
        "mask": hidden.mask,
        "grad_mask_token": tiny.decoder.mask_token.grad,
        "grad_pos_embed_temporal": tiny.encoder.pos_embed.temporal.grad,
        "grad_cls_token": tiny.encoder.cls_token.grad,
        "grad_input_abs_sum": clips.grad.abs().sum((1, 3, 4)),
    }.items():
        assert_near(value, case.out[name], rtol=1e-8)


def test_hidden_pixels_change_the_loss_alone_and_the_order_of_the_batch_nothing():
    tiny = Tiny()
    h, noise = tiny.case.hyper, tiny.case.inputs["noise"]
    hidden = random_keep(noise, h["mask_ratio"])
    before = tiny.step(tiny.clips, hidden)
    rows = tubelets(tiny.clips, h["t_patch_size"], h["patch_size"])
    changed = untubelets(rows + hidden.mask[..., None], h["t_patch_size"], h["patch_size"], tiny.decoder.grid)
    for one, other in zip(before[1:], tiny.step(changed, hidden)[1:], strict=True):
        assert torch.equal(one, other)
    tiny.target = tiny.target.flip(0)
    turned = tiny.step(tiny.clips.flip(0), random_keep(noise.flip(0), h["mask_ratio"]))
    assert_near(turned[0], before[0])
    assert_near(turned[2], before[2].flip(0))


def test_the_image_control():
    case = CHILD["image_mae"]
    h, weights, images = case.hyper, dict(case.weights), case.inputs["images"].double()
    patch = h["patch_size"]
    grid = [side // patch for side in images.shape[2:]]
    encoder = VisionTransformer(
        images.shape[1],
        images.shape[2:],
        patch,
        h["embed_dim"],
        sum(name.startswith("blocks.") and name.endswith("norm1.bias") for name in weights),
        h["num_heads"],
        mlp_ratio=len(weights["blocks.0.mlp.fc1.bias"]) / h["embed_dim"],
    )
    decoder = ImageDecoder(
        h["embed_dim"],
        h["decoder_embed_dim"],
        sum(name.startswith("decoder_blocks.") and name.endswith("norm1.bias") for name in weights),
        h["decoder_num_heads"],
        tuple(grid),
        len(weights["decoder_pred.bias"]),
    )
    for table, width in ((weights["pos_embed"], h["embed_dim"]), (weights["decoder_pos_embed"], h["decoder_embed_dim"])):
        assert_near(table[0, 1:], sincos(width, grid), rtol=0, atol=1e-6)
        assert not table[0, 0].any()
    encoder, decoder = encoder.double(), decoder.double()
    decoder.pos_embed = weights.pop("decoder_pos_embed").double()
    theirs = {name: weights.pop(name) for name in encoder.state_dict()}
    encoder.load_state_dict(theirs)
    decoder.load_state_dict({name.removeprefix("decoder_"): value for name, value in weights.items()})

    hidden = random_keep(case.inputs["noise"], h["mask_ratio"])
    seen = encoder(images, keep=hidden.keep)
    prediction = decoder(torch.cat([seen.prefix, seen.tokens], dim=1), hidden.restore)
    target = patchify(images, patch)
    loss = masked_mse(prediction, normalised(target) if h["norm_pix"] else target, hidden.mask)
    loss.backward()
    for name, value in {
        "loss": loss,
        "pred": prediction[:, ::2],
        "mask": hidden.mask,
        "grad_mask_token": decoder.mask_token.grad,
        "grad_patch_embed_bias": encoder.patch_embed.proj.bias.grad,
    }.items():
        assert_near(value, case.out[name], rtol=1e-8)
