"""Masked autoencoding of clips, and its image control, as wholes against passes of their published code."""

from __future__ import annotations

import math

import pytest
import torch

from golden import Case, assert_near, golden
from tacit.data.spec import Spec
from tacit.data.window import Stretch
from tacit.methods.child_video import ChildVideo
from tacit.methods.method import Progress
from tacit.nn.stills import Stills
from tacit.nn.video_vit import VideoTransformer
from tacit.views.masks import random_keep

CHILD = golden("child-video")
FIRST = Progress(0, 1, 1)


class Given:
    """Draws that are the golden file's."""

    def __init__(self, noise: torch.Tensor) -> None:
        self.noise = noise

    def within(self, scope: str) -> Given:
        return self

    def uniform(self, name: str, *shape: int) -> torch.Tensor:
        assert name == "mask"
        return self.noise.reshape(-1, *shape)


def ours(weights: dict[str, torch.Tensor], encoder: str) -> dict[str, torch.Tensor]:
    """The file's weights under our names: q, k and v in one, tables of positions in a module of theirs."""
    found = {}
    for name, value in weights.items():
        if ".attn.k." in name or ".attn.v." in name:
            continue
        if ".attn.q." in name:
            value = torch.cat([weights[name.replace(".q.", f".{part}.")] for part in "qkv"])
        for old, new in (("attn.q.", "attn.qkv."), ("pos_embed_", "pos_embed."), ("pos_embed.class", "pos_embed.cls")):
            name = name.replace(old, new)
        in_decoder = name.startswith("decoder_") or name == "mask_token"
        found[f"decoder.{name.removeprefix('decoder_')}" if in_decoder else f"{encoder}.{name}"] = value
    return found


def blocks(case: Case, prefix: str) -> int:
    return sum(name.startswith(prefix) and name.endswith("norm1.bias") for name in case.weights)


def method(case: Case, stills: bool = False) -> ChildVideo:
    h, x = case.hyper, case.inputs["images" if stills else "clips"]
    extent = (1, *x.shape[2:]) if stills else tuple(x.shape[2:])
    options = ChildVideo.Options(
        frames=extent[0],
        mask_ratio=h["mask_ratio"],
        norm_pix=bool(h["norm_pix"]),
        frames_predicted=h.get("pred_t_dim", 0),
        decoder_width=h["decoder_embed_dim"],
        decoder_depth=blocks(case, "decoder_blocks."),
        decoder_heads=h["decoder_num_heads"],
        normalise="none",
    )
    shape = (h["patch_size"], h["embed_dim"], blocks(case, "blocks."), h["num_heads"])
    encoder = Stills(x.shape[1], extent, *shape) if stills else VideoTransformer(x.shape[1], extent, h["t_patch_size"], *shape)
    return ChildVideo(options, encoder, Spec("video", x.shape[1], extent), extent[-1]).double()


def test_a_pass_over_clips_and_its_gradients():
    case = CHILD["e2e"]
    made, seen = method(case), {}
    made.load_state_dict(ours(case.weights, "student"))
    made.student.register_forward_hook(lambda _, args, out: seen.update(latent=out.tokens))
    made.decoder.register_forward_hook(lambda _, args, out: seen.update(pred=out))
    clips, wanted = case.inputs["clips"].double().requires_grad_(), made.target
    made.target = lambda clips: wanted(clips).detach()  # the file's gradient goes through the encoder alone
    terms = made({"clip0": clips}, Given(case.inputs["noise"]), FIRST)
    terms.total.backward()
    for name, value in {
        "loss": terms.total,
        "latent": seen["latent"],
        "pred": seen["pred"][:, ::3],
        "mask": random_keep(case.inputs["noise"], case.hyper["mask_ratio"]).mask,
        "grad_mask_token": made.decoder.mask_token.grad,
        "grad_pos_embed_temporal": made.student.pos_embed.temporal.grad,
        "grad_cls_token": made.student.cls_token.grad,
        "grad_input_abs_sum": clips.grad.abs().sum((1, 3, 4)),
    }.items():
        assert_near(value, case.out[name], rtol=1e-8)


def test_a_pass_over_stills_and_its_gradients():
    case = CHILD["image_mae"]
    made, seen = method(case, stills=True), {}
    weights = ours(case.weights, "student.image")
    assert_near(made.decoder.pos_embed, weights["decoder.pos_embed"], rtol=0, atol=1e-6)
    made.decoder.pos_embed = weights.pop("decoder.pos_embed").double()
    made.load_state_dict(weights)
    made.decoder.register_forward_hook(lambda _, args, out: seen.update(pred=out))
    clips = case.inputs["images"].double()[:, :, None]
    terms = made({"clip0": clips}, Given(case.inputs["noise"]), FIRST)
    terms.total.backward()
    for name, value in {
        "loss": terms.total,
        "pred": seen["pred"][:, ::2],
        "grad_mask_token": made.decoder.mask_token.grad,
        "grad_patch_embed_bias": made.student.image.patch_embed.proj.bias.grad,
    }.items():
        assert_near(value, case.out[name], rtol=1e-8)


@pytest.mark.parametrize("suffix", ["", "_norm_pix"])
def test_targets_and_loss(suffix):
    """The method's target and the loss that it calls, on the file's predictions."""
    case = CHILD["loss"]
    h, clips, mask = case.hyper, case.inputs["clips"].double(), case.inputs["mask"]
    options = ChildVideo.Options(
        frames=h["num_frames"], frames_predicted=h["pred_t_dim"], norm_pix=bool(suffix), mask_ratio=0.75, decoder_width=8,
        decoder_depth=0,
    )  # fmt: skip
    encoder = VideoTransformer(clips.shape[1], clips.shape[2:], h["t_patch_size"], h["patch_size"], 8, 1, 2)
    made = ChildVideo(options, encoder, Spec("video", clips.shape[1], tuple(clips.shape[2:])), clips.shape[3])
    prediction = case.inputs["pred"].double().requires_grad_()
    made.predict = lambda clips, hidden: prediction
    # Noise that hides what the file hides, in equal numbers or not.
    made.options = made.options.model_copy(update={"mask_ratio": 1 - float((mask[0] == 0).sum() + 0.5) / mask.shape[1]})
    if len({int(row.sum()) for row in mask}) == 1:
        terms = made({"clip0": clips}, Given(mask), FIRST)
        assert_near(terms.total, case.out[f"loss{suffix}"])
        terms.total.backward()
        assert_near(prediction.grad.sum((1, 2)), case.out[f"grad_pred_sum{suffix}"])
        assert not prediction.grad[mask == 0].any()
    assert_near((prediction - made.target(clips)).square().mean(-1), case.out[f"per_patch{suffix}"])


def test_frames_of_a_clip_as_the_loader_cuts_them():
    case = CHILD["frame_sampling"]
    h = case.hyper
    stride = h["sampling_rate"] * h["video_fps"] / h["target_fps"]
    assert math.isclose(stride * h["num_frames"], case.out["clip_span"])
    window = Stretch(h["num_frames"], stride)
    for uniform, expected in zip(case.inputs["uniform"].tolist(), case.out["indices_random"], strict=True):
        (frames,) = window([h["video_frames"]], [uniform])
        assert frames.tolist() == expected.tolist()
