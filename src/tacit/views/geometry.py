"""One resampling for everything that moves pixels: crop, resize, flips, rotation, displacement field.

A crop with its resize and flips is separable, so it is a few taps per pixel along either axis; what is not separable is one
interpolation at composed coordinates.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from tacit.views.taps import Taps, separable


def _linear(distance: Tensor) -> Tensor:
    return (1 - distance.abs()).clamp(min=0)


def _cubic(distance: Tensor) -> Tensor:
    """Keys' cubic with a = -0.5, as Pillow and PyTorch's antialiased interpolation have it."""
    x = distance.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))


_KERNELS: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {"bilinear": (_linear, 1), "bicubic": (_cubic, 2)}


def resample(
    data: Tensor,
    sizes: Tensor,
    boxes: Tensor,
    out: tuple[int, int],
    flip_x: Tensor | None = None,
    flip_y: Tensor | None = None,
    rotation: Tensor | None = None,
    field: Tensor | None = None,
    interpolation: str = "bicubic",
) -> Tensor:
    """Every sample's box, enlarged or reduced to one size: crop, then flips, then rotation, then field, in one step.

    Without rotation and field the filter is widened when it reduces (antialiasing) and sees only the box: cropping first
    and `interpolate(..., antialias=True)` give the same image. With them it is a plain interpolation, which sees the
    surroundings of the box, mirrored at the borders of the sample. Padding is never seen.

    Args:
        data: `[B, C, H, W]` of any real dtype.
        sizes: int `[B, 2]`, the true height and width within the padding.
        boxes: `[B, 4]`, top, left, height, width in pixels; pixel i covers `[i, i + 1)`.
        out: height h and width w of the result.
        flip_x, flip_y: bool `[B]`, whether to mirror left and right, top and bottom.
        rotation: `[B]`, radians, anticlockwise about the middle of the view.
        field: `[B, 2, h, w]`, down and right, in pixels of the view: each pixel shows what lies that far from it.
        interpolation: `bicubic` or `bilinear`.

    Returns:
        float32 `[B, C, h, w]` (float64 from float64), in the units of `data`; bicubic overshoots its range.
    """
    dtype = torch.float64 if data.dtype == torch.float64 else torch.float32
    if rotation is not None or field is not None:
        return _warp(data.to(dtype), sizes, boxes, out, flip_x, flip_y, rotation, field, interpolation)
    rows = _taps(data.shape[2], sizes[:, 0], boxes[:, 0], boxes[:, 2], out[0], flip_y, interpolation, dtype)
    columns = _taps(data.shape[3], sizes[:, 1], boxes[:, 1], boxes[:, 3], out[1], flip_x, interpolation, dtype)
    return separable(data, rows, columns)


def _taps(
    length: int,
    size: Tensor,
    start: Tensor,
    extent: Tensor,
    out: int,
    flip: Tensor | None,
    interpolation: str,
    dtype: torch.dtype,
) -> Taps:
    """What each of `out` pixels takes from `length` along one axis; all weights of one sum to 1."""
    kernel, reach = _KERNELS[interpolation]
    start, extent = start.to(dtype), extent.to(dtype)
    scale = (extent / out)[:, None]
    width = scale.clamp(min=1)
    place = torch.arange(out, dtype=dtype, device=size.device).expand(len(size), out)
    if flip is not None:
        place = torch.where(flip[:, None], out - 1 - place, place)
    centre = start[:, None] + (place + 0.5) * scale  # [B, out]

    # The number of pixels under the kernel is bounded by shapes, so nothing is read back.
    taps = min(length, 2 * math.ceil(reach * max(length / out, 1)) + 2)
    first = (centre - reach * width).floor().clamp(0, length - taps)
    pixel = first[..., None] + torch.arange(taps, dtype=dtype, device=size.device)  # [B, out, taps]
    weight = kernel((pixel + 0.5 - centre[..., None]) / width[..., None])
    low = start.floor().clamp(min=0)[:, None, None]
    high = torch.minimum((start + extent).ceil(), size.to(dtype))[:, None, None]
    weight = weight * ((pixel >= low) & (pixel < high))
    return Taps(pixel, weight / weight.sum(dim=2, keepdim=True))


def _warp(
    image: Tensor,
    sizes: Tensor,
    boxes: Tensor,
    out: tuple[int, int],
    flip_x: Tensor | None,
    flip_y: Tensor | None,
    rotation: Tensor | None,
    field: Tensor | None,
    interpolation: str,
) -> Tensor:
    """Interpolation at composed coordinates, from each pixel of the view back to the sample."""
    # From the middle of the view, in its pixels: y down, x right.
    y = (torch.arange(out[0], dtype=image.dtype, device=image.device) + 0.5 - out[0] / 2)[:, None]
    x = (torch.arange(out[1], dtype=image.dtype, device=image.device) + 0.5 - out[1] / 2)[None, :]
    if field is not None:
        y, x = y + field[:, 0], x + field[:, 1]  # [B, h, w]
    if rotation is not None:
        cos, sin = rotation.cos()[:, None, None], rotation.sin()[:, None, None]
        y, x = x * sin + y * cos, x * cos - y * sin
    if flip_y is not None:
        y = torch.where(flip_y[:, None, None], -y, y)
    if flip_x is not None:
        x = torch.where(flip_x[:, None, None], -x, x)
    top, left, height, width = boxes.to(image.dtype)[..., None, None].unbind(1)
    row = _mirror(top + (y / out[0] + 0.5) * height, sizes[:, 0])
    column = _mirror(left + (x / out[1] + 0.5) * width, sizes[:, 1])

    # Neighbours of the last row and column lie in the padding: let them repeat the border.
    for axis in (2, 3):
        inside = torch.arange(image.shape[axis], device=image.device).minimum(sizes[:, axis - 2, None] - 1).long()
        shape = [len(image), 1, 1, 1]
        shape[axis] = -1
        image = image.gather(axis, inside.view(shape).expand_as(image))
    grid = torch.stack([2 * column / image.shape[3] - 1, 2 * row / image.shape[2] - 1], dim=-1)
    return F.grid_sample(image, grid, mode=interpolation, padding_mode="border", align_corners=False)


def _mirror(place: Tensor, size: Tensor) -> Tensor:
    """Coordinates folded at the borders as often as needed, and no further out than the middle of the last pixel."""
    size = size.to(place.dtype)[:, None, None]
    return (size - (place.remainder(2 * size) - size).abs()).clamp(min=0.5).minimum(size - 0.5)
