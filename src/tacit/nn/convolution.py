"""Convolutions whose gradients can be relied on, on a processor in half precision, too."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def steady(module: nn.Module) -> None:
    """Let torch's convolutions in a module see maps smaller than their kernels with the zeros around them, in bfloat16.

    Of such maps a processor does not write the whole gradient of the weights (seen with torch 2.13, in two and three
    dimensions): what is missing is what the memory held before, NaN now and then, and some shapes write where nothing of theirs
    is. Where the zeros are a part of the map, no kernel reaches beyond it.
    """
    for part in module.modules():
        if type(part) in _STEADY:
            part.__class__ = _STEADY[type(part)]


def _inside(self: Any, input: Tensor) -> Tensor | None:
    """The convolution of a map with its zeros, where these are needed."""
    if input.device.type != "cpu" or not torch.is_autocast_enabled("cpu") or isinstance(self.padding, str):
        return None
    reach = [dilation * (kernel - 1) + 1 for kernel, dilation in zip(self.kernel_size, self.dilation, strict=True)]
    sides = zip(input.shape[2:], reach, self.padding, strict=True)
    if self.padding_mode != "zeros" or not any(padding and side < kernel for side, kernel, padding in sides):
        return None
    around = [zeros for padding in reversed(self.padding) for zeros in (padding, padding)]
    convolve = F.conv2d if isinstance(self, nn.Conv2d) else F.conv3d
    return convolve(F.pad(input, around), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class _SteadyConv2d(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) if (found := _inside(self, input)) is None else found


class _SteadyConv3d(nn.Conv3d):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) if (found := _inside(self, input)) is None else found


_STEADY: dict[type[nn.Module], type[nn.Module]] = {nn.Conv2d: _SteadyConv2d, nn.Conv3d: _SteadyConv3d}
