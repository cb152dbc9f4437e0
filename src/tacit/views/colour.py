"""Colour changes as one affine map per sample: brightness, contrast, saturation, hue and grey cost one product together.

Images are in `[0, 1]`. The maps are composed before they act, so values are clipped once, after the last, and not after each
as in code that works step by step: what one step pushes out of range the next can bring back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

# ITU-R BT.601: the grey value, and the two axes of colour (I, Q) around it.
_YIQ = torch.tensor(
    [[0.299, 0.587, 0.114], [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]], dtype=torch.float64
)
_RGB = torch.linalg.inv(_YIQ)
_GREY = torch.outer(_RGB[:, 0], _YIQ[0]).float()  # every channel becomes the grey value
_COLOUR = torch.eye(3) - _GREY  # what is left when the grey value is taken away
_TURN = (torch.outer(_RGB[:, 1], _YIQ[2]) - torch.outer(_RGB[:, 2], _YIQ[1])).float()  # that, a quarter turn on


@dataclass(frozen=True)
class ColourMap:
    """What every pixel of a sample becomes: `matrix @ pixel + offset`.

    Attributes:
        matrix: `[B, C, C]`.
        offset: `[B, C]`.
        gain: `[B, C]`, the diagonal of a matrix that is 0 beside it: half the work.
    """

    matrix: Tensor
    offset: Tensor
    gain: Tensor | None = None

    def of(self, pixel: Tensor) -> Tensor:
        """What one pixel `[B, C]` of each sample becomes."""
        return torch.bmm(self.matrix, pixel[..., None])[..., 0] + self.offset

    def then(self, after: ColourMap) -> ColourMap:
        """This map followed by another."""
        return ColourMap(after.matrix @ self.matrix, after.of(self.offset))

    def __call__(self, image: Tensor) -> Tensor:
        """`[B, C, H, W]` to a new tensor of the same shape."""
        if self.gain is not None:
            return (image * self.gain[..., None, None]).add_(self.offset[..., None, None])
        return torch.bmm(self.matrix, image.flatten(2)).add_(self.offset[..., None]).view_as(image)


def scaling(gain: Tensor, offset: Tensor) -> ColourMap:
    """`gain * pixel + offset` with both `[B, C]`."""
    return ColourMap(torch.diag_embed(gain), offset, gain)


def jitter(
    before: ColourMap,
    mean: Tensor,
    brightness: Tensor,
    lift: Tensor,
    contrast: Tensor,
    saturation: Tensor,
    hue: Tensor,
    order: Tensor,
) -> ColourMap:
    """A map followed by the four colour changes, in an order of its own for every sample.

    Contrast acts about the mean of the image as it is when its turn comes: of the grey value where there are three
    channels (as torchvision), else of each channel. Saturation and hue act on three channels only.

    Args:
        before: what the image has been through.
        mean: `[B, C]`, the mean of the image before `before`.
        brightness, contrast, saturation: `[B]`, factors; 1 changes nothing.
        lift: `[B]`, added with brightness's turn; 0 changes nothing.
        hue: `[B]`, in turns of the colour circle; 0 changes nothing, 1/3 makes red green. A rotation about the grey axis
            of YIQ, which is linear and keeps the grey value. The shift in HSV of most libraries does neither: on photographs
            of clothes and flowers the two differ by 0.02 on average for shifts up to 0.1 and by 0.03 to 0.04 up to 0.2,
            nearly as much as HSV moves the grey value.
        order: int64 `[B, 4]`, a permutation of 0 brightness, 1 contrast, 2 saturation, 3 hue for every sample.
    """
    channels = mean.shape[1]
    even = torch.eye(channels, dtype=mean.dtype, device=mean.device)
    changes = [brightness[:, None, None] * even, contrast[:, None, None] * even, even.expand(len(mean), -1, -1)]
    if channels == 3:
        changes[2] = _saturate(saturation)
    changes.append(_rotate(hue) if channels == 3 else changes[2])
    matrices = torch.stack(changes, dim=1)  # [B, 4, C, C]
    rows = torch.arange(len(mean), device=mean.device)
    colour = before
    for which in order.unbind(1):
        level = _level(colour.of(mean))
        offset = torch.where(which == 1, 1 - contrast, 0)[:, None] * level + torch.where(which == 0, lift, 0)[:, None]
        colour = colour.then(ColourMap(matrices[rows, which], offset))
    return colour


def grey(before: ColourMap, chosen: Tensor) -> ColourMap:
    """A map followed by the loss of all colour, in the samples that were `chosen` (bool `[B]`); three channels only."""
    if before.matrix.shape[1] != 3:
        return before
    return before.then(ColourMap(_saturate((~chosen).to(before.matrix.dtype)), torch.zeros_like(before.offset)))


def solarise(image: Tensor, threshold: float) -> Tensor:
    """The negative of every value from `threshold` on."""
    return torch.where(image >= threshold, 1 - image, image)


def _saturate(factor: Tensor) -> Tensor:
    """`[B, 3, 3]`: the colour made `factor [B]` times as strong."""
    return _GREY.to(factor) + factor[:, None, None] * _COLOUR.to(factor)


def _rotate(turns: Tensor) -> Tensor:
    """`[B, 3, 3]`: the colour rotated by `turns [B]` of the colour circle."""
    angle = 2 * math.pi * turns[:, None, None]
    return _GREY.to(turns) + angle.cos() * _COLOUR.to(turns) + angle.sin() * _TURN.to(turns)


def _level(mean: Tensor) -> Tensor:
    """`[B, C]`: what contrast leaves alone, given the mean of each channel."""
    return mean @ _GREY.to(mean).T if mean.shape[1] == 3 else mean
