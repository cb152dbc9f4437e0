"""Crops of volumes around points, and where the same place lies in another volume.

Points are voxels in the order of the volume's axes. Whatever order volumes, points and sizes come in, it is the same for all.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def crop_around(volumes: Tensor, points: Tensor, roi: Sequence[int], sizes: Tensor | None = None) -> Tensor:
    """The voxels `[c - r // 2, c - r // 2 + r)` along each axis around each point c, exactly 0 outside of the volume.

    Args:
        volumes: `[B, C, X, Y, Z]`.
        points: int64 `[B, 3]`.
        roi: r along each axis.
        sizes: int `[B, 3]`, true sides within the padding; None if there is none.

    Returns:
        `[B, C, *roi]` in the dtype of the volumes.
    """
    if sizes is None:
        sizes = points.new_tensor(volumes.shape[2:]).expand(len(volumes), 3)
    rows = torch.arange(len(volumes), device=volumes.device).view(-1, 1, 1, 1)
    places, seen = [], torch.ones(len(volumes), 1, 1, 1, dtype=torch.bool, device=volumes.device)
    for axis, side in enumerate(roi):
        shape = [len(volumes), 1, 1, 1]
        shape[axis + 1] = side
        place = points[:, axis, None] - side // 2 + torch.arange(side, device=volumes.device)
        inside = (place >= 0) & (place < sizes[:, axis, None])
        places.append(place.clamp(0, volumes.shape[axis + 2] - 1).view(shape))
        seen = seen & inside.view(shape)
    crops = volumes.movedim(1, -1)[rows, places[0], places[1], places[2]]  # [B, *roi, C]
    return torch.where(seen[..., None], crops, 0).movedim(-1, 1)


def body_points(volumes: Tensor, chances: Tensor, sizes: Tensor | None = None, margin: int = 10) -> Tensor:
    """Points uniform over the voxels above 0 that do not lie in the margin at the far borders: int64 `[B, n, 3]`.

    The same as drawing voxels until one fits (Alice), without drawing again. Where no voxel fits, any intensity does.

    Args:
        volumes: `[B, C, X, Y, Z]`; the first channel is looked at.
        chances: `[B, n]`, uniform numbers in `[0, 1)`.
        sizes: int `[B, 3]`, true sides within the padding; None if there is none.
        margin: voxels that are left out at the end of each axis; a quarter of the side, rounded down, where that is less.
    """
    extent = volumes.shape[2:]
    if sizes is None:
        sizes = torch.tensor(extent, device=volumes.device).expand(len(volumes), 3)
    allowed = torch.ones(len(volumes), 1, 1, 1, dtype=torch.bool, device=volumes.device)
    for axis, side in enumerate(extent):
        end = sizes[:, axis] - (sizes[:, axis] // 4).clamp(max=margin)
        shape = [len(volumes), 1, 1, 1]
        shape[axis + 1] = side
        allowed = allowed & (torch.arange(side, device=volumes.device) < end[:, None]).view(shape)
    fitting = allowed & (volumes[:, 0] > 0)
    fitting = torch.where(fitting.flatten(1).any(dim=1).view(-1, 1, 1, 1), fitting, allowed)
    rank = fitting.flatten(1).cumsum(dim=1)  # [B, X * Y * Z], how many fit up to each voxel
    chosen = (chances.double() * rank[:, -1:]).long()
    voxel = torch.searchsorted(rank, chosen.contiguous(), right=True)
    return torch.stack([voxel // (extent[1] * extent[2]), voxel // extent[2] % extent[1], voxel % extent[2]], dim=-1)


def descriptors(fine: Tensor, coarse: Tensor) -> Tensor:
    """One unit vector for each fine cell, whose products are the mean of the fine and of the coarse similarity.

    Args:
        fine: `[B, C, *grid]`, unit vectors.
        coarse: `[B, C', *smaller]`, unit vectors; enlarged trilinearly (corners not aligned), and made unit again.

    Returns:
        `[B, C + C', *grid]`; of volumes of several sizes, one at a time, since padding would shift the coarse cells.
    """
    coarse = F.normalize(F.interpolate(coarse, size=fine.shape[2:], mode="trilinear", align_corners=False), dim=1)
    return torch.cat([fine, coarse], dim=1) * 0.5**0.5


def match(
    query: Tensor,
    key: Tensor,
    points: Tensor,
    ratio_query: Tensor,
    ratio_key: Tensor,
    stride: int,
    sizes_key: Tensor,
    cells: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Where the key volumes are most like the query volumes at given points (Alice, step 3).

    Args:
        query, key: `[B, D, *grid]`, `[B, D, *grid']`: the descriptors of the two volumes, float32 or float64.
        points: int64 `[B, n, 3]`, voxels of the query volumes.
        ratio_query, ratio_key: `[B, 3]`, voxel spacing over the spacing of the grid that embeddings were made on.
        stride: cells of that grid to a fine cell.
        sizes_key: int `[B, 3]`, sides of the key volumes in voxels; no coordinate is greater than that.
        cells: bool `[B, *grid']`, the cells that a key volume really has; None if all have equally many.

    Returns:
        int64 `[B, n, 3]`, voxels of the key volumes, and the similarity `[B, n]`; the first of several maxima.
    """
    place = (points.double() * ratio_query[:, None].double() / stride).floor().long()
    grid = query.shape[2:]
    x, y, z = (place[..., axis].clamp(0, side - 1) for axis, side in enumerate(grid))
    wanted = query.flatten(2).gather(2, ((x * grid[1] + y) * grid[2] + z)[:, None].expand(-1, query.shape[1], -1))
    likeness = wanted.transpose(1, 2) @ key.flatten(2)  # [B, n, cells]
    if cells is not None:
        likeness = likeness.masked_fill(~cells.flatten(1)[:, None], float("-inf"))
    score, cell = likeness.max(dim=-1)
    _, b, c = key.shape[2:]
    cell = torch.stack([cell // (b * c), cell // c % b, cell % c], dim=-1)
    voxel = ((cell * stride + 0.5) / ratio_key[:, None].double()).long()
    return voxel.minimum(sizes_key[:, None].long()), score


def first_good(score: Tensor, threshold: float = 0.7) -> Tensor:
    """Which of n tries is taken, int64 `[B]`: the first whose score `[B, n]` is above the threshold, else the last."""
    good = score > threshold
    good[:, -1] = True
    return good.int().argmax(dim=1)


def body_box(volumes: Tensor) -> Tensor:
    """int64 `[B, 2, 3]`: the first voxel above 0 along each axis of `[B, C, X, Y, Z]`, and the one after the last.

    The first channel is looked at. A volume with nothing above 0 is a body as a whole.
    """
    body = volumes[:, 0] > 0
    body = body | ~body.flatten(1).any(dim=1).view(-1, 1, 1, 1)
    low, high = [], []
    for axis in range(3):
        line = body.any(dim=tuple(other for other in (3, 2, 1) if other != axis + 1)).int()  # [B, side]
        low.append(line.argmax(dim=1))
        high.append(line.shape[1] - line.flip(1).argmax(dim=1))
    return torch.stack([torch.stack(low, dim=1), torch.stack(high, dim=1)], dim=1)


def same_position(points: Tensor, box_query: Tensor, box_key: Tensor) -> Tensor:
    """The voxels `[B, n, 3]` at the same relative position in the key volumes' boxes `[B, 2, 3]` (see `body_box`).

    What `match` is measured against, and what stands in for it without embeddings.
    """
    low, high = box_query[:, None].unbind(2)  # [B, 1, 3]
    start, end = box_key[:, None].unbind(2)
    share = (points - low + 0.5).double() / (high - low)
    return (start + (share * (end - start)).floor().long()).clamp(min=0)
