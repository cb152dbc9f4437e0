"""Tokens of clouds found by tensors alone: those of the trees, and an encoder that leaves with them."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

from tacit.core.errors import TacitError
from tacit.data.spec import Spec
from tacit.nn.points.encoder import PointTransformer
from tacit.nn.points.program import volumetric_groups
from tacit.use.export import export

SIZES = torch.tensor([90, 57, 1])
SPEC = Spec("points", 4, (90,), mean=(0.5, 0.5, 0.5, 0.1), std=(0.3, 0.3, 0.3, 2e-7))


def clouds(grid: float = 0.0) -> Tensor:
    """Three padded clouds `[3, 5, 90]`, on a grid where that is given: then many points are equally far."""
    x = torch.rand(3, 4, 90, generator=torch.Generator().manual_seed(0))
    x = x if not grid else (x / grid).round() * grid
    there = (torch.arange(90) < SIZES[:, None])[:, None]
    return torch.cat([x * there, there.to(x)], dim=1)


def encoder(**options) -> PointTransformer:
    torch.manual_seed(0)
    made = PointTransformer(4, **{"radius": 0.2, "width": 12, "depth": 2, "heads": 4, "slots": 6, "norm": "token"} | options)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made.eval()


@pytest.mark.parametrize(
    ("grid", "cut"),
    [
        (0.0, {}),
        (0.125, {"overlap": 0.625}),  # distances of exactly a radius, and ties
        (0.0, {"neighbours": 5, "most": 4}),  # lists that are cut, and so not mutual; balls with fewer points than slots
    ],
)
def test_tokens_are_those_of_the_trees(grid: float, cut: dict[str, float]):
    net, x = encoder(radius=0.25 if grid else 0.2, **cut), clouds(grid)
    found = volumetric_groups(x[:, :4].transpose(1, 2), x[:, -1] > 0, **net.cut)
    for got, expected in zip(found, net.group(x), strict=True):
        assert torch.equal(got, expected)


@pytest.mark.parametrize("form", ["onnx", "torch"])
@pytest.mark.parametrize("options", [{"pool": "mean+max"}, {"relative_bias": "distance", "mean_centres": True}])
def test_a_program_takes_clouds_of_any_size_below_its_own(tmp_path, form: str, options: dict[str, object]):
    net, x = encoder(**options), clouds()
    result = export(net, SPEC, [90], form, tmp_path / "program", x)
    assert result.difference <= 1e-5 * result.largest
    if form == "torch":
        extra = {"preprocessing.json": ""}
        program = torch.export.load(tmp_path / "program", extra_files=extra).module()
        fewer = x[:2].flip(0)  # other clouds together, of other numbers of tokens
        torch.testing.assert_close(program(fewer), net(fewer).pooled, rtol=1e-5, atol=1e-5)
        told = json.loads(extra["preprocessing.json"])
        assert told["std"][3] == pytest.approx(2e-7)
        assert "(3 s)" in told["steps"][1]


def test_one_cloud_has_to_be_one_cloud(tmp_path):
    with pytest.raises(TacitError, match="norm=token"):
        export(encoder(norm="masked_batch"), SPEC, [90], "onnx", tmp_path / "program.onnx", clouds())
    assert not list(tmp_path.iterdir())
