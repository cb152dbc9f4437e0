"""Where a view looks: boxes for a whole batch, `(top, left, height, width)` in pixels of each sample."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tacit.core.draws import Draws

_TRIES = 10
DRAWN = {"crop.area": _TRIES, "crop.aspect": _TRIES, "crop.top": 1, "crop.left": 1}
"""What a random crop draws: how many numbers under which name."""


def random_resized_crop(draws: Draws, sizes: Tensor, area: tuple[float, float], aspect: tuple[float, float]) -> Tensor:
    """Boxes of a random share of the area and a random shape, as in Inception and every method since.

    Ten tries, each an area uniform over `area`, an aspect log-uniform over `aspect` and both sides rounded to whole pixels;
    the first that fits is put anywhere at random. Where none fits: the largest central box of an allowed aspect.

    Args:
        draws: the names of `DRAWN` are drawn.
        sizes: int `[B, 2]`, true height and width of every sample.
        area: least and greatest share of the sample's area, in `(0, 1]`.
        aspect: least and greatest width / height.

    Returns:
        float32 `[B, 4]`, whole numbers, inside the sample.
    """
    height, width = sizes.to(torch.float32).unsqueeze(-1).unbind(1)  # [B, 1] each
    target = draws.uniform("crop.area", _TRIES, low=area[0], high=area[1]) * height * width
    shape = draws.uniform("crop.aspect", _TRIES, low=math.log(aspect[0]), high=math.log(aspect[1])).exp()
    tall, wide = (target / shape).sqrt().round(), (target * shape).sqrt().round()  # [B, tries]
    fits = (tall >= 1) & (tall <= height) & (wide >= 1) & (wide <= width)

    # A last try that always fits, so that the first of them that fits always exists.
    tall = torch.cat([tall, torch.minimum(height, (width / aspect[0]).round().clamp(min=1))], dim=1)
    wide = torch.cat([wide, torch.minimum(width, (height * aspect[1]).round().clamp(min=1))], dim=1)
    fits = torch.cat([fits, torch.ones_like(fits[:, :1])], dim=1)
    first = fits.int().argmax(dim=1, keepdim=True)
    tall, wide = tall.gather(1, first), wide.gather(1, first)

    central = first == _TRIES
    free_rows, free_columns = height - tall, width - wide
    top = torch.where(central, free_rows / 2, draws.uniform("crop.top", 1) * (free_rows + 1)).floor()
    left = torch.where(central, free_columns / 2, draws.uniform("crop.left", 1) * (free_columns + 1)).floor()
    return torch.cat([top, left, tall, wide], dim=1)


def central_square(sizes: Tensor) -> Tensor:
    """float32 `[B, 4]`: the largest square in the middle of every sample, on whole pixels. `sizes` is int `[B, 2]`."""
    side = sizes.amin(dim=1, keepdim=True)
    corner = (sizes - side) // 2
    return torch.cat([corner, side, side], dim=1).to(torch.float32)
