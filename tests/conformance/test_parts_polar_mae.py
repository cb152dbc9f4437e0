"""The parts of PoLAr-MAE against numbers from its published code."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, nn

from golden import Case, assert_near, golden
from tacit.nn.points.encoder import PointTransformer
from tacit.nn.points.grouping import Groups, collate, contents, thin, volumetric
from tacit.nn.points.norm import BatchLayerNorm, MaskedBatchNorm
from tacit.nn.points.pointnet import PointNet, order_code
from tacit.nn.points.trunk import RaggedTransformer, put_back
from tacit.objectives.chamfer import ragged_chamfer
from tacit.objectives.reconstruct import masked_mse
from tacit.train.schedule import cosine, linear
from tacit.views.points import hide_tokens, log_range, placed, places, rotation, turned

POLAR = golden("polar-mae")
POINTNET = {
    "first_conv.0": "first.fc1",
    "first_conv.1": "first.norm",
    "first_conv.3": "first.fc2",
    "second_conv.0": "second.fc1",
    "second_conv.1": "second.norm",
    "second_conv.3": "second.fc2",
    "position_encoder.time_embed.1": "order",
}


def near(actual: Tensor, expected: Tensor, tolerance: float = 1e-8) -> None:
    assert_near(actual, expected, rtol=tolerance, atol=tolerance)


def pointnet(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The published names of a mini-PointNet as ours; a convolution of width 1 is a linear layer."""
    ours = {}
    for name, value in weights.items():
        stem, _, kind = name.rpartition(".")
        ours[f"{POINTNET[stem]}.{kind}"] = value.squeeze(-1)
    return ours


def transformer(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The published names of a transformer as ours."""
    return {name.replace("gamma", "weight").replace("beta", "bias"): value.squeeze() if "norm" in name else value
            for name, value in weights.items()}  # fmt: skip


def grouped(case: Case) -> Groups:
    h, points = case.hyper, case.inputs["points"]
    clouds = [cloud[:length].numpy() for cloud, length in zip(points, case.inputs["lengths"].tolist(), strict=True)]
    found = volumetric(clouds, h["radius"], h["overlap_factor"], h["K"], h["group_max_points"], h["group_upscale_points"])
    return collate(found, min(h["context_length"], points.shape[1]))


def test_energies_are_brought_to_one_range():
    case = POLAR["energy_transform"]
    energy = case.inputs["energy"]
    near(log_range(energy, case.hyper["threshold"], case.hyper["emax"]), case.out["value"])
    assert torch.equal(energy > case.hyper["threshold"], case.out["keep"])


def test_coordinates_are_centred_scaled_and_turned():
    case = POLAR["coordinates"]
    x = placed(case.inputs["points"].transpose(1, 2), case.hyper["center"], case.hyper["scale"])
    near(x.transpose(1, 2), case.out["normalized"])
    matrix = rotation(case.inputs["euler"])
    near(matrix, case.out["rotation"])
    near(turned(x, matrix).transpose(1, 2), case.out["rotated"])


def test_learning_rate():
    case = POLAR["lr"]
    h = case.hyper
    for step, expected in zip(case.inputs["step"].tolist(), case.out["lr"].tolist(), strict=True):
        if step < h["warmup"]:
            rate = linear(step / (h["warmup"] - 1), h["start"], h["base"])
        else:
            rate = cosine((step - h["warmup"]) / (h["total"] - h["warmup"]), h["base"], h["eta_min"])
        assert rate == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_centres_are_thinned():
    case = POLAR["cnms"]
    h = case.hyper
    for row, length in enumerate(case.inputs["lengths"].tolist()):
        centres = thin(case.inputs["points"][row, :length].numpy(), h["radius"], h["overlap_factor"], h["K"])
        assert centres.tolist() == case.out["retain"][row].nonzero()[:, 0].tolist()
        assert len(centres) == case.out["count"][row]


def test_groups():
    case = POLAR["grouping"]
    groups = grouped(case)
    patches, centres = contents(case.inputs["points"], groups, case.hyper["radius"])
    assert torch.equal(groups.valid, case.out["embedding_mask"])
    assert torch.equal(groups.point_mask, case.out["point_mask"])
    assert torch.equal(groups.members, case.out["index"])
    near(patches, case.out["groups"])
    assert_near(centres, case.out["centers"], rtol=0, atol=1e-7)  # stored in float32


def test_masks():
    case = POLAR["mask"]
    hidden, seen = hide_tokens(case.inputs["uniform"], case.inputs["lengths"], case.hyper["ratio"])
    assert torch.equal(hidden, case.out["masked"])
    assert torch.equal(seen, case.out["visible"])


def test_masked_layer_norm():
    case = POLAR["masked_layer_norm"]
    x = case.inputs["x"].requires_grad_()
    norm = BatchLayerNorm(x.shape[-1]).double()
    norm.load_state_dict({"weight": case.weights["gamma"].flatten(), "bias": case.weights["beta"].flatten()})
    y = norm(x, case.inputs["mask"])
    near(y, case.out["y"])
    near(torch.autograd.grad((y * case.inputs["cotangent"]).sum(), x)[0], case.out["grad_x"])


def test_masked_batch_norm():
    case = POLAR["masked_batch_norm"]
    x, mask = case.inputs["x"].transpose(1, 2), case.inputs["mask"][:, 0]
    norm = MaskedBatchNorm(x.shape[-1], eps=case.hyper["eps"]).double()
    norm.momentum = case.hyper["momentum"]
    norm.load_state_dict(case.weights | {name: case.inputs[name] for name in ("running_mean", "running_var")})
    near(norm(x, mask).transpose(1, 2), case.out["y_train"])
    near(norm.running_mean, case.out["running_mean"])
    near(norm.running_var, case.out["running_var"])
    near(norm.eval()(x, mask).transpose(1, 2), case.out["y_eval"])


def test_ordered_pointnet():
    case = POLAR["pointnet_ordered"]
    h, points = case.hyper, case.inputs["points"]
    net = PointNet(points.shape[-1], h["out"], (h["h1"], h["h2"]), ordered=True).double()
    net.load_state_dict(pointnet(case.weights))
    near(order_code(points.shape[1], h["h2"]), case.out["order_code"])
    near(net(points, case.inputs["point_mask"]), case.out["y"])


class Whole(nn.Module):
    """A step built of the parts, with the published names translated."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        h, channels = case.hyper, case.inputs["points"].shape[-1]
        hidden = (h["h1"], h["h2"])
        ratio = len(case.weights["encoder.transformer.blocks.0.mlp.fc1.bias"]) / h["dim"]
        self.size = h["group_max_points"]
        self.encoder = PointTransformer(
            channels, h["radius"], h["dim"], h["depth"], h["heads"], slots=self.size, hidden=hidden, mlp_ratio=ratio
        )
        self.decoder = RaggedTransformer(h["dim"], h["decoder_depth"], h["heads"], last_norm=True, mlp_ratio=ratio)
        self.mask_token = nn.Parameter(torch.zeros(h["dim"]))
        self.point_head = nn.Linear(h["dim"], self.size * channels)
        self.ordered = PointNet(3, h["dim"], hidden, ordered=True)
        self.energy_head = nn.Linear(2 * h["dim"], self.size * (channels - 3))
        names = {
            "encoder.tokenizer": pointnet(case.part("encoder.tokenizer.embedding.")),
            "encoder.pos_embed": case.part("encoder.pos_embed.pos_enc."),
            "encoder.trunk": transformer(case.part("encoder.transformer.")),
            "decoder": transformer(case.part("decoder.transformer.")),
            "point_head": {name: value.squeeze(-1) for name, value in case.part("increase_dim.").items()},
            "ordered": pointnet(case.part("equivariant_patch_encoder.")),
            "energy_head": {name: value.squeeze(-1) for name, value in case.part("energy_decoder.").items()},
        }
        state = {f"{front}.{name}": value for front, part in names.items() for name, value in part.items()}
        self.double().load_state_dict(state | {"mask_token": case.weights["mask_token"]})

    def forward(self, points: Tensor, groups: Groups, hidden: Tensor, seen: Tensor) -> dict[str, Tensor]:
        tokens = self.encoder.tokenize(points.transpose(1, 2), groups)
        keep, slots = places(seen), hidden.shape[1]
        encoded = put_back(self.encoder.attend(tokens, keep).tokens, keep, slots)
        z = encoded + self.mask_token * hidden[..., None]
        decoded = self.decoder(z, self.encoder.pos_embed(tokens.centres), tokens.valid).tokens
        told, true, mask = decoded[hidden], tokens.patches[hidden], tokens.point_mask[hidden]
        shape = self.point_head(told).unflatten(1, (self.size, -1))
        order = self.ordered(true[..., :3], mask)
        energy = self.energy_head(torch.cat([order, told], dim=1)).unflatten(1, (self.size, -1))
        return {
            "tokens": tokens.embedded,
            "encoder_visible": encoded,
            "decoder_masked": decoded * hidden[..., None],
            "chamfer": ragged_chamfer(shape, true, mask.sum(1)).mean(),
            "energy": masked_mse(energy, true[..., 3:], mask),
        }


def test_a_whole_step_and_its_gradients():
    case = POLAR["end_to_end"]
    groups = grouped(case)
    hidden, seen = hide_tokens(case.inputs["mask_uniform"], groups.valid.sum(1), case.hyper["ratio"])
    assert torch.equal(hidden, case.out["masked"])
    assert torch.equal(seen, case.out["visible"])
    whole = Whole(case)
    out = whole(case.inputs["points"], groups, hidden, seen)
    for name in ("energy", "tokens", "encoder_visible", "decoder_masked"):
        near(out[name] if name != "encoder_visible" else out[name] * seen[..., None], case.out[name])
    near(out["chamfer"], case.out["chamfer"], 1e-5)
    (out["chamfer"] + out["energy"]).backward()
    gradients = {
        "mask_token": whole.mask_token,
        "energy_decoder_bias": whole.energy_head.bias,
        "increase_dim_bias": whole.point_head.bias,
        "enc0_qkv_bias": whole.encoder.trunk.get_parameter("blocks.0.attn.qkv.bias"),
        "pos_enc0_weight": whole.encoder.pos_embed.get_parameter("0.weight"),
        "ordered_bn_weight": whole.ordered.first.norm.weight,
    }
    assert {re.sub("^grad_", "", name) for name in case.out if name.startswith("grad_")} == set(gradients)
    for name, parameter in gradients.items():
        assert parameter.grad is not None
        near(parameter.grad, case.out[f"grad_{name}"], 1e-5)
