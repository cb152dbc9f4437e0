"""PoLAr-MAE as a whole against a step of its published code."""

from __future__ import annotations

import pytest
import torch
from test_parts_polar_mae import pointnet, transformer
from torch import Tensor

from golden import Case, assert_near, golden
from tacit.data.spec import Spec
from tacit.methods.method import Progress
from tacit.methods.polar_mae import PolarMAE
from tacit.nn.points.encoder import PointTransformer

CASE = golden("polar-mae")["end_to_end"]


class Given:
    """Draws that are the golden file's; nothing else is drawn."""

    def uniform(self, name: str, *shape: int) -> Tensor:
        assert name == "mask"
        return CASE.inputs["mask_uniform"][:, : shape[0]]

    def within(self, scope: str) -> None:
        """Nothing is dropped."""


def linear(case: Case, name: str) -> dict[str, Tensor]:
    """A convolution of width 1 is a linear layer."""
    return {key: value.squeeze(-1) for key, value in case.part(name).items()}


def method() -> PolarMAE:
    h, channels = CASE.hyper, CASE.inputs["points"].shape[-1]
    ratio = len(CASE.weights["encoder.transformer.blocks.0.mlp.fc1.bias"]) / h["dim"]
    options = PolarMAE.Options(mask_ratio=h["ratio"], decoder_depth=h["decoder_depth"], drop_path=0.0, dropout=0.0, turn="none")
    encoder = PointTransformer(
        channels, h["radius"], h["dim"], h["depth"], h["heads"], h["overlap_factor"], h["K"], h["group_max_points"],
        h["group_upscale_points"], hidden=(h["h1"], h["h2"]), mlp_ratio=ratio,
    )  # fmt: skip
    made = PolarMAE(options, encoder, Spec("points", channels, (CASE.inputs["points"].shape[1],)), 4096).double()
    parts = {
        "student.tokenizer": pointnet(CASE.part("encoder.tokenizer.embedding.")),
        "student.pos_embed": CASE.part("encoder.pos_embed.pos_enc."),
        "student.trunk": transformer(CASE.part("encoder.transformer.")),
        "decoder": transformer(CASE.part("decoder.transformer.")),
        "point_head": linear(CASE, "increase_dim."),
        "ordered": pointnet(CASE.part("equivariant_patch_encoder.")),
        "value_head": linear(CASE, "energy_decoder."),
    }
    state = {f"{front}.{name}": value for front, part in parts.items() for name, value in part.items()}
    made.load_state_dict(state | {"mask_token": CASE.weights["mask_token"], "constant": made.constant.detach()})
    return made


def view() -> Tensor:
    """The clouds as the method is shown them."""
    points, lengths = CASE.inputs["points"], CASE.inputs["lengths"]
    there = torch.arange(points.shape[1]) < lengths[:, None]
    return torch.cat([points, there[..., None]], dim=2).transpose(1, 2)


def test_a_step_and_its_gradients():
    made = method()
    terms = made({"view": view()}, Given(), Progress(0, 1, 1))
    assert_near(terms.parts["energy"], CASE.out["energy"], rtol=1e-8, atol=1e-8)
    assert_near(terms.parts["chamfer"], CASE.out["chamfer"], rtol=1e-5, atol=1e-5)
    assert_near(terms.total, CASE.out["chamfer"] + CASE.out["energy"], rtol=1e-5, atol=1e-5)
    terms.total.backward()
    assert made.ordered is not None
    assert made.value_head is not None
    for name, parameter in {
        "mask_token": made.mask_token,
        "energy_decoder_bias": made.value_head.bias,
        "increase_dim_bias": made.point_head.bias,
        "enc0_qkv_bias": made.student.trunk.get_parameter("blocks.0.attn.qkv.bias"),
        "pos_enc0_weight": made.student.pos_embed.get_parameter("0.weight"),
        "ordered_bn_weight": made.ordered.first.norm.weight,
    }.items():
        assert parameter.grad is not None
        assert_near(parameter.grad, CASE.out[f"grad_{name}"], rtol=1e-5, atol=1e-5)


def test_what_is_hidden_seen_and_decoded():
    made = method()
    found = made.predict(view(), Given())  # pyright: ignore[reportArgumentType]
    slots = found.mask.shape[1]
    for key in ("masked", "visible"):
        assert not CASE.out[key][:, slots:].any()
    hidden = CASE.out["masked"][:, :slots]
    assert torch.equal(found.mask, hidden)
    assert torch.equal(found.tokens.valid & ~found.mask, CASE.out["visible"][:, :slots])
    assert_near(found.tokens.embedded, CASE.out["tokens"][:, :slots], rtol=1e-8, atol=1e-8)
    assert_near(found.encoded, CASE.out["encoder_visible"][:, :slots], rtol=1e-8, atol=1e-8)
    assert_near(found.decoded * hidden[..., None], CASE.out["decoder_masked"][:, :slots], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("predicted", ["full", "pos"])
def test_the_features_have_no_part_in_distances_of_places(predicted):
    """Chamfer over places alone, where the option says so."""
    case = method()
    other = PolarMAE(case.options.model_copy(update={"predicted": predicted}), case.student, case.spec, 4096).double()
    found = other.predict(view(), Given())  # pyright: ignore[reportArgumentType]
    assert found.points.shape[2] == {"full": case.spec.channels, "pos": 3}[predicted]
