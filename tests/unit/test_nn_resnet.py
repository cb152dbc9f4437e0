"""Residual networks: shapes, names, first values."""

from __future__ import annotations

import pytest
import torch

from tacit.core.errors import TacitError
from tacit.nn.build import encoder
from tacit.nn.resnet import VARIANTS, BasicBlock, Bottleneck, ResNet


@pytest.mark.parametrize(
    ("extent", "stem"), [((32, 32), "small"), ((33, 47), "small"), ((224, 97), "imagenet"), ((65, 65), "imagenet")]
)
def test_tokens_are_the_cells_of_the_last_map(extent, stem):
    model = encoder("resnet-mini", 2, extent, stem=stem).eval()
    seen = model(torch.randn(2, 2, *extent, generator=torch.Generator().manual_seed(0)), taps=["layer1", "layer4"])
    h, w = model.grid(extent)
    assert seen.taps["layer4"].shape == (2, 256, h, w)
    assert torch.equal(seen.tokens, seen.taps["layer4"].flatten(2).transpose(1, 2))
    torch.testing.assert_close(seen.pooled, seen.taps["layer4"].mean((2, 3)))
    assert seen.prefix is None
    assert seen.taps["layer1"].shape[1] == 32


def test_small_views_get_the_small_stem_and_the_configuration_says_so():
    assert encoder("resnet-mini", 3, 32).config["stem"] == "small"
    assert encoder("resnet-mini", 3, 96).config["stem"] == "imagenet"
    assert encoder("resnet-mini", 3, 32).conv1.kernel_size == (3, 3)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("resnet18", 11_176_512),
        ("resnet34", 21_284_672),
        ("resnet50", 23_508_032),
        ("resnet101", 42_500_160),
        ("resnet152", 58_143_808),
    ],
)
def test_full_sizes_have_the_published_numbers_of_parameters(name, count):
    with torch.device("meta"):
        model = ResNet(3, **VARIANTS[name]._asdict())
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_names_are_timms():
    names = set(encoder("resnet50", 3, 224).state_dict())
    assert {"conv1.weight", "bn1.running_var", "layer1.0.conv3.weight", "layer4.2.bn3.bias"} <= names
    assert {"layer1.0.downsample.0.weight", "layer1.0.downsample.1.weight", "layer2.0.downsample.1.running_mean"} <= names
    assert not any("downsample" in name for name in names if ".1.conv" in name)


def test_every_block_starts_as_its_shortcut():
    model = encoder("resnet-mini", 3, 32, zero_gain=True)
    for block in model.modules():
        if isinstance(block, BasicBlock | Bottleneck):
            x = torch.rand(2, block.conv1.in_channels, 8, 8, generator=torch.Generator().manual_seed(0))
            torch.testing.assert_close(block(x), block.downsample(x).relu())
    plain = encoder("resnet-mini", 3, 32)
    assert all((value == 1).all() for name, value in plain.state_dict().items() if name.endswith("bn2.weight"))


def test_first_values_of_convolutions():
    def spread(init: str) -> float:
        return float(encoder("resnet18", 3, 32, init=init).state_dict()["layer4.0.conv1.weight"].std())

    assert spread("moco") == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.01)
    assert spread("simclr") == pytest.approx((1 / (256 * 9)) ** 0.5, rel=0.01)


def test_the_multiplier_widens_everything():
    model = encoder("resnet-mini", 3, 32, multiplier=2)
    assert (model.width, model.conv1.out_channels) == (512, 64)


def test_levels_rise_with_the_blocks():
    model = encoder("resnet18", 3, 32)
    assert model.depth == 8
    assert [model.level(n) for n in ("conv1.weight", "bn1.bias", "layer1.0.conv1.weight", "layer4.1.bn2.weight")] == [
        0,
        0,
        1,
        8,
    ]


def test_what_only_transformers_can_is_refused():
    model, x = encoder("resnet-mini", 3, 32), torch.zeros(1, 3, 32, 32)
    for wish in ({"keep": torch.zeros(1, 2, dtype=torch.int64)}, {"attention": True}):
        with pytest.raises(TacitError, match="no tokens to hide"):
            model(x, **wish)
    with pytest.raises(TacitError, match="layer4"):
        model(x, taps=["layer5"])
