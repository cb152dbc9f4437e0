"""Which points: farthest-point sampling, balls, nearest neighbours, and features carried from one set of points to another.

Batched and on the device of the points. Distances are squared and Euclidean; they are made for a block of queries at a time, so
that nothing larger than `BLOCK` numbers arises.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

BLOCK = 1 << 22
"""How many distances are held at a time."""


def present(sizes: Tensor | None, points: Tensor) -> Tensor:
    """Which of the rows of `points [B, N, ...]` are points and not padding: bool `[B, N]`; all where `sizes [B]` is None."""
    row = torch.arange(points.shape[1], device=points.device).expand(points.shape[:2])
    return row >= 0 if sizes is None else row < sizes.reshape(-1, 1)


def gather(rows: Tensor, index: Tensor) -> Tensor:
    """Rows `[B, N, C]` at places int64 `[B, ...]` -> `[B, ..., C]`; a place of -1 gives row 0, for the caller to ignore."""
    flat = index.flatten(1).clamp(min=0)[..., None].expand(-1, -1, rows.shape[-1])
    return rows.gather(1, flat).unflatten(1, index.shape[1:])


@torch.no_grad()
def farthest_points(points: Tensor, count: int, sizes: Tensor | None = None) -> Tensor:
    """Point 0, then again and again the point that lies farthest from those taken; of equal ones the first.

    Args:
        points: `[B, N, 3]`.
        count: how many to take.
        sizes: int `[B]`, true points of each set, at least 1; None if all are.

    Returns:
        int64 `[B, count]`, no point twice; where a set has fewer points, its places repeat point 0.
    """
    true = present(sizes, points)
    left = torch.where(true, torch.inf, -torch.inf).to(points.dtype)  # distance to those taken, of those not taken
    taken = torch.zeros(len(points), count, dtype=torch.int64, device=points.device)
    axes = points.unbind(-1)
    for turn in range(min(count, points.shape[1])):
        newest = left.argmax(dim=1, keepdim=True)
        taken[:, turn : turn + 1] = newest
        distance = sum((axis - axis.gather(1, newest)).square() for axis in axes)
        left = torch.minimum(left, distance).scatter_(1, newest, -torch.inf)  # pyright: ignore[reportArgumentType]
    return taken.masked_fill_(torch.arange(count, device=points.device) >= true.sum(1, keepdim=True), 0)


@torch.no_grad()
def ball_query(points: Tensor, centres: Tensor, radius: float, count: int, sizes: Tensor | None = None) -> Tensor:
    """The first `count` points, in the order of the set, that lie strictly within a radius of each centre.

    Args:
        points: `[B, N, 3]`.
        centres: `[B, T, 3]`.
        radius: in the units of the points.
        count: K.
        sizes: int `[B]`, true points of each set; None if all are.

    Returns:
        int64 `[B, T, K]`, ascending, then -1.
    """
    true = present(sizes, points)[:, None]
    found = [_first((near < radius * radius) & true, count) for near in _distances(centres, points)]
    return torch.cat(found, dim=1)


@torch.no_grad()
def nearest(points: Tensor, centres: Tensor, count: int, sizes: Tensor | None = None) -> Tensor:
    """The `count` points nearest to each centre, nearest first; of equally near ones the first.

    Args:
        points: `[B, N, 3]`.
        centres: `[B, T, 3]`.
        count: k, at most N.
        sizes: int `[B]`, true points of each set, at least k; None if all are.

    Returns:
        int64 `[B, T, k]`.
    """
    absent = ~present(sizes, points)[:, None]
    found = []
    for distance in _distances(centres, points):
        distance = distance.masked_fill(absent, torch.inf)
        farthest = distance.topk(count, largest=False).values[..., -1:]
        # What lies on the last sphere is taken in order, which `topk` does not promise.
        within, on = distance < farthest, distance == farthest
        on &= on.cumsum(-1) <= count - within.sum(-1, keepdim=True)
        chosen = _first(within | on, count)
        found.append(chosen.gather(-1, distance.gather(-1, chosen).argsort(dim=-1, stable=True)))
    return torch.cat(found, dim=1)


def propagate(
    features: Tensor, coarse: Tensor, fine: Tensor, count: int = 3, sizes: Tensor | None = None, eps: float = 1e-8
) -> Tensor:
    """Features carried from coarse points to fine ones: the mean over the nearest, weighted by `1 / (d^2 + eps)`.

    Args:
        features: `[B, T, D]`.
        coarse: `[B, T, 3]`, where they lie.
        fine: `[B, N, 3]`, where they are wanted.
        count: neighbours; 3 in PointNet++, 5 in PoLAr-MAE's segmentation. Sets with fewer points use all of theirs.
        sizes: int `[B]`, true coarse points of each set, at least 1; None if all are.
        eps: keeps the weight of a point that lies on a neighbour finite.

    Returns:
        `[B, N, D]`.
    """
    count = min(count, coarse.shape[1])
    index = nearest(coarse, fine, count, sizes)
    distance = (gather(coarse, index) - fine[:, :, None]).square().sum(-1)
    weight = (distance + eps).reciprocal() * gather(present(sizes, coarse)[..., None], index)[..., 0]
    weight = weight / weight.sum(-1, keepdim=True)
    blocks = index.split(_rows(index[..., 0], count * features.shape[-1]), dim=1)
    weights = weight.split(blocks[0].shape[1], dim=1)
    return torch.cat([(gather(features, i) * w[..., None]).sum(2) for i, w in zip(blocks, weights, strict=True)], dim=1)


def _distances(queries: Tensor, points: Tensor) -> Iterator[Tensor]:
    """Squared distances `[B, q, N]` of a block of queries after another to all points.

    Of differences, not of inner products: a radius is strict, and ties have to stay ties.
    """
    axes = points.unbind(-1)
    for block in queries.split(_rows(queries, points.shape[1]), dim=1):
        pairs = zip(block.unbind(-1), axes, strict=True)
        yield sum((query[:, :, None] - axis[:, None]).square() for query, axis in pairs)  # pyright: ignore[reportReturnType]


def _rows(queries: Tensor, cost: int) -> int:
    """How many of the queries `[B, T, ...]` make up a block, if one costs so many numbers."""
    return max(1, BLOCK // max(1, len(queries) * cost))


def _first(chosen: Tensor, count: int) -> Tensor:
    """The places of the first `count` true entries of bool `[..., N]`: int64 `[..., count]`, then -1."""
    places = torch.where(chosen, torch.arange(chosen.shape[-1], device=chosen.device), chosen.shape[-1])
    first = places.topk(min(count, chosen.shape[-1]), dim=-1, largest=False).values
    first = torch.nn.functional.pad(first, (0, count - first.shape[-1]), value=chosen.shape[-1])
    return first.masked_fill(first == chosen.shape[-1], -1)
