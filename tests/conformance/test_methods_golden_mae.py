"""MAE as a whole against a forward pass of its published code."""

from __future__ import annotations

import torch

from golden import assert_near, golden
from tacit.data.spec import Spec
from tacit.methods.mae import MAE
from tacit.methods.method import Progress
from tacit.nn.vit import VisionTransformer

CASE = golden("mae")["forward"]
OURS = {
    "decoder_embed": "decoder.embed",
    "decoder_blocks": "decoder.blocks",
    "decoder_norm": "decoder.norm",
    "decoder_pred": "decoder.pred",
    "decoder_pos_embed": "decoder.pos_embed",
    "mask_token": "decoder.mask_token",
}


class Given:
    """Draws that are the golden file's."""

    def uniform(self, name: str, *shape: int) -> torch.Tensor:
        assert shape == CASE.inputs["noise"].shape[1:]
        return CASE.inputs["noise"]


def ours(name: str) -> str:
    head, _, rest = name.partition(".")
    return ".".join([OURS[head], rest]).rstrip(".") if head in OURS else f"student.{name}"


def method() -> MAE:
    h, names, images = CASE.hyper, CASE.weights, CASE.inputs["images"]
    encoder = VisionTransformer(
        images.shape[1],
        images.shape[2:],
        h["patch_size"],
        h["embed_dim"],
        h["depth"],
        h["num_heads"],
        mlp_ratio=len(names["blocks.0.mlp.fc1.bias"]) / h["embed_dim"],
    )
    options = MAE.Options(
        mask_ratio=h["mask_ratio"],
        decoder_width=h["decoder_dim"],
        decoder_depth=h["decoder_depth"],
        decoder_heads=h["decoder_heads"],
    )
    made = MAE(options, encoder, Spec("image", images.shape[1], tuple(images.shape[2:])), images.shape[2]).double()
    for module in made.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = h["norm_eps"]
    # The decoder's table of positions is made anew each time, so it is no part of the state; here it is the given one.
    weights = {ours(name): value for name, value in names.items()}
    made.decoder.pos_embed = weights.pop("decoder.pos_embed")
    made.load_state_dict(weights)
    return made


def test_forward_pass_and_its_gradients():
    mae, seen = method(), {}
    mae.student.register_forward_hook(lambda _, args, out: seen.update(latent=torch.cat([out.prefix, out.tokens], dim=1)))
    mae.decoder.register_forward_hook(lambda _, args, out: seen.update(pred=out))
    terms = mae({"view": CASE.inputs["images"]}, Given(), Progress(0, 1, 1))
    terms.total.backward()
    weight = mae.student.patch_embed.proj.weight
    for name, value in {
        "loss": terms.total,
        "pred": seen["pred"],
        "latent": seen["latent"],
        "mask": mae.hide(Given(), CASE.hyper["mask_ratio"]).mask,
        "grad_cls_token": mae.student.cls_token.grad,
        "grad_mask_token": mae.decoder.mask_token.grad,
        "grad_patch_embed_weight": weight.grad,
        "grad_decoder_pred_bias": mae.decoder.pred.bias.grad,
    }.items():
        assert_near(value, CASE.out[name], rtol=1e-8)


def test_tables_of_positions_are_the_published_ones():
    mae = method()
    fresh = MAE(mae.options, mae.student, mae.spec, mae.size)
    assert_near(fresh.decoder.pos_embed, CASE.weights["decoder_pos_embed"], rtol=0, atol=1e-6)
