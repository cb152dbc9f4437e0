"""Gaussian blur with a width of its own for every sample."""

from __future__ import annotations

import torch
from torch import Tensor

from tacit.views.taps import Taps, separable


def gaussian_blur(image: Tensor, kernel_size: int, sigma: Tensor | float) -> Tensor:
    """SimCLR's blur: separable, `2 * (kernel_size // 2) + 1` taps that sum to 1, black beyond the borders.

    Args:
        image: `[B, C, H, W]`, float32 or float64.
        kernel_size: requested number of taps; an even number gives one more.
        sigma: `[B]` or one number, in pixels, above 0.
    """
    reach = kernel_size // 2
    sigma = torch.as_tensor(sigma, dtype=image.dtype, device=image.device).expand(len(image))
    taps = torch.arange(-reach, reach + 1, device=sigma.device)
    kernel = (-(taps**2) / (2 * sigma[:, None] ** 2)).exp()
    kernel = kernel / kernel.sum(dim=1, keepdim=True)
    rows, columns = (_taps(image.shape[axis], taps, kernel) for axis in (2, 3))
    return separable(image, rows, columns)


def _taps(length: int, offsets: Tensor, kernel: Tensor) -> Taps:
    """The same `kernel [B, taps]` around every pixel of an axis, with nothing beyond its ends."""
    place = torch.arange(length, device=kernel.device)[:, None] + offsets  # [length, taps]
    inside = (place >= 0) & (place < length)
    return Taps(place.clamp(0, length - 1).expand(len(kernel), -1, -1), kernel[:, None] * inside)
