"""Gaussian blur with a width of its own for every sample."""

from __future__ import annotations

import torch
from torch import Tensor


def gaussian_blur(image: Tensor, kernel_size: int, sigma: Tensor | float) -> Tensor:
    """SimCLR's blur: separable, `2 * (kernel_size // 2) + 1` taps that sum to 1, black beyond the borders.

    Two batched products with banded matrices: as cheap as the resampling, whatever the kernel.

    Args:
        image: `[B, C, H, W]`, float32 or float64.
        kernel_size: requested number of taps; an even number gives one more.
        sigma: `[B]` or one number, in pixels, above 0.
    """
    reach = kernel_size // 2
    sigma = torch.as_tensor(sigma, dtype=image.dtype, device=image.device).expand(len(image))
    rows, columns = (_band(image.shape[axis], reach, sigma) for axis in (2, 3))
    blurred = torch.bmm(image.flatten(1, 2), columns).view_as(image)
    return torch.matmul(rows[:, None], blurred)


def _band(length: int, reach: int, sigma: Tensor) -> Tensor:
    """`[B, length, length]`, symmetric: what each pixel gives to each along one axis."""
    taps = torch.arange(-reach, reach + 1, device=sigma.device)
    kernel = (-(taps**2) / (2 * sigma[:, None] ** 2)).exp()
    kernel = kernel / kernel.sum(dim=1, keepdim=True)
    place = torch.arange(length, device=sigma.device)
    offset = place[:, None] - place[None, :]
    band = kernel[:, offset.clamp(-reach, reach) + reach]
    return band * (offset.abs() <= reach)
