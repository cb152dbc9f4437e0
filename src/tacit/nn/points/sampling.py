"""Which points: farthest-point sampling, balls, nearest neighbours, and features carried from one set of points to another.

Batched and on the device of the points. Distances are squared and Euclidean; they are made for a block of queries at a time, so
that nothing larger than `BLOCK` numbers arises, on a processor nothing larger than `CACHED`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

A = TypeVar("A", Tensor, np.ndarray)

PLACE = (1 << 29) - 1
"""The lower bits of a key, a place; above them lies a distance in single precision, whose bits are in order as numbers are
from 0 on. Keys are all different, so any way of choosing and sorting them keeps the first of equally near points."""

BLOCK = 1 << 22
"""How many distances are held at a time."""

CACHED = 1 << 16
"""The same on a processor: what stays in its cache is made several times as fast."""


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
    taken = torch.zeros(points.shape[0], count, dtype=torch.int64, device=points.device)
    axes = _axes(points)
    for turn in range(min(count, points.shape[1])):
        newest = left.argmax(dim=1, keepdim=True)
        taken[:, turn : turn + 1] = newest
        distance = _squares(axis - axis.gather(1, newest) for axis in axes)
        left = torch.minimum(left, distance).scatter_(1, newest, -torch.inf)
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
    if points.device.type == "cpu":
        return _by_numpy(lambda distance: _first_here(distance < radius * radius, count), centres, points, sizes)
    return torch.cat([first_places(near < radius * radius, count) for near in _distances(centres, points, sizes)], dim=1)


@torch.no_grad()
def nearest(points: Tensor, centres: Tensor, count: int, sizes: Tensor | None = None) -> Tensor:
    """The `count` points nearest to each centre, nearest first; of those equally near in single precision the first.

    Args:
        points: `[B, N, 3]`.
        centres: `[B, T, 3]`.
        count: k, at most N.
        sizes: int `[B]`, true points of each set, at least k; None if all are.

    Returns:
        int64 `[B, T, k]`.
    """
    if points.device.type == "cpu":
        return _by_numpy(lambda distance: _nearest_here(distance, count), centres, points, sizes, least=count)
    return torch.cat([_nearest(distance, count) for distance in _distances(centres, points, sizes)], dim=1)


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


def _distances(queries: Tensor, points: Tensor, sizes: Tensor | None) -> Iterator[Tensor]:
    """Squared distances `[B, q, N]` of a block of queries after another to all points; infinite to what is padding.

    Of differences, not of inner products: a radius is strict, and ties have to stay ties.
    """
    axes = _axes(_apart(points, sizes))
    for block in queries.split(_rows(queries, points.shape[1]), dim=1):
        pairs = zip(block.unbind(-1), axes, strict=True)
        yield _squares(query[:, :, None] - axis[:, None] for query, axis in pairs)


def _squares(differences: Iterator[A]) -> A:
    """The sum of the squares of what is overwritten, in this order."""
    total = next(differences)
    total *= total
    for each in differences:
        each *= each
        total += each
    return total


def _apart(points: Tensor, sizes: Tensor | None) -> Tensor:
    """The points, with what is padding infinitely far away."""
    return points.masked_fill(~present(sizes, points)[..., None], torch.inf)


def _axes(points: Tensor) -> tuple[Tensor, ...]:
    """x, y and z of points `[B, N, 3]`, each `[B, N]` in one piece."""
    return points.movedim(-1, 0).contiguous().unbind()


def _rows(queries: Tensor, cost: int) -> int:
    """How many of the queries `[B, T, ...]` make up a block, if one costs so many numbers."""
    most = CACHED if queries.device.type == "cpu" else BLOCK
    return max(1, most // max(1, len(queries) * cost))


def _nearest(distance: Tensor, count: int) -> Tensor:
    """The places of the `count` smallest numbers of each row of `[..., N]`, ascending; of equal ones the first."""
    keys = distance.float().view(torch.int32).long() << 29 | torch.arange(distance.shape[-1], device=distance.device)
    return keys.topk(count, dim=-1, largest=False).values & PLACE


def first_places(chosen: Tensor, count: int) -> Tensor:
    """The places of the first `count` true entries of bool `[..., N]`: int64 `[..., count]`, then -1."""
    places = torch.where(chosen, torch.arange(chosen.shape[-1], device=chosen.device), chosen.shape[-1])
    first = places.topk(min(count, chosen.shape[-1]), dim=-1, largest=False).values
    first = torch.nn.functional.pad(first, (0, count - first.shape[-1]), value=chosen.shape[-1])
    return first.masked_fill(first == chosen.shape[-1], -1)


# The same on a processor, where NumPy compares, selects and sorts several times as fast. Threads would mostly wait for the
# interpreter: what each asks NumPy for takes some 20 microseconds.


def _by_numpy(
    choose: Callable[[np.ndarray], np.ndarray], queries: Tensor, points: Tensor, sizes: Tensor | None, least: int = 1
) -> Tensor:
    """What is chosen by the distances `[q, N]` of a block of a set's queries: int64 `[B, T, ...]`.

    Of each set the true points are looked at, and where these are fewer than `least`, others infinitely far away.
    """

    def chosen(asking: np.ndarray, there: np.ndarray, size: int) -> np.ndarray:
        axes, rows = np.ascontiguousarray(there[:size].T), max(1, CACHED // size)
        blocks = (asking[start : start + rows].T[..., None] for start in range(0, len(asking), rows))
        return np.concatenate([choose(_squares(map(np.subtract, block, axes))) for block in blocks])

    many = [points.shape[1]] * len(points) if sizes is None else sizes.clamp(min=least).tolist()
    sets = zip(queries.detach().numpy(), _apart(points, sizes).numpy(), many, strict=True)
    return torch.from_numpy(np.stack([chosen(*each) for each in sets]))


def _nearest_here(distance: np.ndarray, count: int) -> np.ndarray:
    """As `_nearest`."""
    # As doubles the distances leave the lower bits 0: quicker than to shift.
    keys = distance.astype(np.float32, copy=False).astype(np.float64).view(np.int64)
    keys |= np.arange(distance.shape[-1])
    keys.partition(count - 1)
    return np.sort(keys[..., :count]) & PLACE


def _first_here(chosen: np.ndarray, count: int) -> np.ndarray:
    """As `first_places`: few are true, and no others need be looked at."""
    row, place = np.divmod(np.flatnonzero(chosen), chosen.shape[-1])
    many = np.bincount(row, minlength=chosen.size // chosen.shape[-1])
    turn = np.arange(len(row)) - np.repeat(np.cumsum(many) - many, many)
    early = turn < count
    first = np.full((len(many), count), -1)
    first[row[early], turn[early]] = place[early]
    return first.reshape(*chosen.shape[:-1], count)
