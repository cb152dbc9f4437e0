"""Rectangles wiped out of a view."""

from __future__ import annotations

import torch
from torch import Tensor


def erase(image: Tensor, boxes: Tensor) -> Tensor:
    """Zero inside `boxes [B, 4]` (top, left, height, width in whole pixels) of `image [B, C, H, W]`."""
    top, left, height, width = boxes[..., None, None, None].unbind(1)
    row = torch.arange(image.shape[2], device=image.device)[:, None]
    column = torch.arange(image.shape[3], device=image.device)
    inside = (row >= top) & (row < top + height) & (column >= left) & (column < left + width)
    return image.masked_fill(inside, 0.0)
