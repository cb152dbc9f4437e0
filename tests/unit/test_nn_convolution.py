"""Convolutions in half precision on a processor."""

from __future__ import annotations

import pytest
import torch
from tiny_methods import stepping, tiny
from torch import Tensor, nn

from tacit.nn.convolution import steady

SHAPES = [
    (nn.Conv2d(8, 16, 3, 2, padding=1), (1, 1)),
    (nn.Conv2d(8, 16, 3, (1, 2), padding=1), (3, 1)),
    (nn.Conv2d(8, 16, 7, 2, padding=3), (5, 1)),
    (nn.Conv2d(8, 16, 3, padding=2, dilation=2), (2, 2)),
    (nn.Conv3d(8, 16, 3, padding=1), (2, 4, 4)),
    (nn.Conv3d(8, 16, 3, 2, padding=1), (1, 1, 1)),
    (nn.Conv3d(8, 16, (3, 1, 1), padding=(1, 0, 0)), (2, 2, 2)),
    (nn.Conv3d(8, 16, 5, padding=2), (4, 4, 4)),
]


def gradients(layer: nn.Module, x: Tensor, half: bool) -> list[Tensor]:
    x = x.clone().requires_grad_()
    layer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        layer(x).sum().backward()
    assert x.grad is not None
    return [x.grad, *(parameter.grad for parameter in layer.parameters())]


@pytest.mark.parametrize(("layer", "extent"), SHAPES)
def test_gradients_in_half_precision_are_those_in_full(layer: nn.Module, extent: tuple[int, ...]) -> None:
    """Also where the memory that they are written to holds NaN."""
    x = torch.randn(4, 8, *extent)
    expected = gradients(layer, x, half=False)
    steady(layer)
    for _ in range(3):
        rubbish = [torch.full((2**power,), torch.nan) for power in range(6, 18)]
        del rubbish
        for found, true in zip(gradients(layer, x, half=True), expected, strict=True):
            torch.testing.assert_close(found.float(), true, rtol=0.02, atol=0.02 * float(true.abs().max()))


@pytest.mark.parametrize(("layer", "extent"), SHAPES)
def test_outputs_stay_what_they_are(layer: nn.Module, extent: tuple[int, ...]) -> None:
    x, names = torch.randn(4, 8, *extent), list(layer.state_dict())
    expected = layer(x)
    steady(layer)
    assert torch.equal(layer(x), expected)
    assert list(layer.state_dict()) == names
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(layer(x).float(), expected, rtol=0.02, atol=0.05)


def test_what_is_trained_is_steady() -> None:
    """Every convolution of a method, its teacher's included."""
    made = stepping(tiny("dino", "resnet-mini", size=8)).method
    layers = [part for part in made.modules() if isinstance(part, nn.Conv2d)]
    assert len(layers) > 10
    assert not any(type(part) is nn.Conv2d for part in layers)
