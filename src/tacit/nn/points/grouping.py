"""Volumetric tokens: balls of one radius whose centres were thinned, so that their number follows the size of a cloud.

All of it depends on distances and on the order of the points alone, which a rotation keeps: it can be done once per cloud and
kept as indices. On the CPU with a k-d tree for each cloud; `collate` makes a batch, `contents` looks the points up.
Young, Jwa, Terao, "Particle Trajectory Representation Learning with Masked Point Modeling", 2025.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.spatial import KDTree
from torch import Tensor

from tacit.core.errors import TacitError
from tacit.nn.points.sampling import farthest_points, gather

QUERIES = 4096
"""How many balls are searched at a time."""

THINNED = 1 << 16
"""How many points of balls are held at a time while these are thinned: what stays in a processor's cache."""


class Patches(NamedTuple):
    """The tokens of one cloud.

    Attributes:
        centre: int64 `[M]`, the point that each token lies around.
        members: int64 `[M, S]`, its points; slots beyond `filled` repeat the first.
        filled: int64 `[M]`, how many points it has, 1 to S.
    """

    centre: Tensor
    members: Tensor
    filled: Tensor


class Groups(NamedTuple):
    """The tokens of a batch of clouds; those of a cloud come first, the places after them are empty.

    Attributes:
        centre: int64 `[B, T]`, -1 in empty places.
        members: int64 `[B, T, S]`, -1 in empty places; else as in `Patches`.
        filled: int64 `[B, T]`, 0 in empty places.
    """

    centre: Tensor
    members: Tensor
    filled: Tensor

    @property
    def valid(self) -> Tensor:
        """Which places hold a token: bool `[B, T]`."""
        return self.centre >= 0

    @property
    def point_mask(self) -> Tensor:
        """Which places of the tokens hold a point of its own: bool `[B, T, S]`."""
        return torch.arange(self.members.shape[2], device=self.members.device) < self.filled[..., None]

    def to(self, device: torch.device | str) -> Groups:
        return Groups(*(each.to(device) for each in self))


def balls(
    points: NDArray[np.floating], queries: NDArray[np.floating], radius: float, most: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The first points, in the order of the cloud, that lie strictly within a radius of each query.

    Args:
        points: `[N, 3]`.
        queries: `[Q, 3]`.
        radius: in the units of the points.
        most: how many of each ball are listed.

    Returns:
        int64 `[Q + 1]` and int64 `[P]`: the ball of query i is `index[start[i] : start[i + 1]]`, ascending.
    """
    points, queries = points.astype(np.float64, copy=False), queries.astype(np.float64, copy=False)
    tree, bits, slack = KDTree(points), len(points).bit_length(), 1e-9 * radius
    found, counts = [], []
    for first in range(0, len(queries), QUERIES):
        block = queries[first : first + QUERIES]
        near = KDTree(block).sparse_distance_matrix(tree, radius + slack, output_type="ndarray")
        query, point, distance = near["i"], near["j"], near["v"]
        unsure = np.flatnonzero(distance > radius - slack)  # the tree rounds in its own way: there the difference decides
        x, y, z = (block[query[unsure]] - points[point[unsure]]).T
        outside = unsure[x * x + y * y + z * z >= radius * radius]
        pairs = np.sort(np.delete(query << bits | point, outside))
        query, point = pairs >> bits, pairs & ((1 << bits) - 1)
        many = np.bincount(query, minlength=len(block))
        if many.max(initial=0) > most:
            place = np.arange(len(query)) - np.repeat(np.cumsum(many) - many, many)
            point = point[place < most]
        found.append(point)
        counts.append(np.minimum(many, most))
    return np.cumsum(np.concatenate([[0], *counts])), np.concatenate([np.empty(0, np.int64), *found])


def thin(points: NDArray[np.floating], radius: float, overlap: float, most: int) -> NDArray[np.int64]:
    """Centres by centrality-based non-maximum suppression (C-NMS).

    Points take turns, those with most neighbours first (of equal ones the first); each that is still there removes all others
    of its list, even such as had stayed before it, which happens where lists were cut and so are not mutual.

    Args:
        points: `[N, 3]`.
        radius: of the tokens' balls.
        overlap: f; points within `2 * radius * f` of each other are neighbours.
        most: K, how many neighbours of a point are listed, the first in the order of the cloud. Lists that are cut by it remove
            centres that would be needed: take at least the largest number of neighbours.

    Returns:
        int64 `[M]`, ascending.
    """
    start, index = balls(points, points, 2 * radius * overlap, most)
    stays = np.ones(len(points), dtype=bool)
    ends = start.tolist()
    for point in np.argsort(-np.diff(start), kind="stable").tolist():
        if stays[point]:
            stays[index[ends[point] : ends[point + 1]]] = False
            stays[point] = True
    return np.flatnonzero(stays)


class Balls(NamedTuple):
    """The points around centres, in the order of the cloud.

    Attributes:
        points: `[N, 3 + F]`, the cloud.
        centre: int64 `[M]`.
        hits: int64 `[M, W]`, the last one of a ball repeated.
        many: int64 `[M]`, how many are in each ball.
    """

    points: NDArray[np.floating]
    centre: NDArray[np.int64]
    hits: NDArray[np.int64]
    many: NDArray[np.int64]


def volumetric(
    clouds: Sequence[NDArray[np.floating]],
    radius: float,
    overlap: float = 0.72,
    neighbours: int = 256,
    size: int = 32,
    most: int = 256,
    seeds: NDArray[np.int64] | None = None,
    reduction: Literal["fps", "energy"] = "fps",
) -> list[Patches]:
    """The tokens of each cloud: `thin` its points, or the seeds among them, and take points of the balls around what stays.

    Args:
        clouds: each `[N, 3 + F]`, coordinates first.
        radius: of the balls, in the units of the coordinates.
        overlap: f of `thin`.
        neighbours: K of `thin`.
        size: S, the most points of a token.
        most: U, the most points of a ball that are considered, the first in the order of the cloud.
        seeds: int64, which points may become centres; all where None.
        reduction: `fps`: taken farthest first, also where there are no more than S (heads depend on this order); `energy`:
            those with the largest fourth channel, largest first.
    """

    def around(points: NDArray[np.floating]) -> Balls:
        candidates = np.arange(len(points)) if seeds is None else seeds
        centre = candidates[thin(points[candidates, :3], radius, overlap, neighbours)]
        start, index = balls(points[:, :3], points[centre, :3], radius, most)
        many = np.diff(start)
        place = np.arange(many.max(initial=1))
        return Balls(points, centre, index[np.minimum(start[:-1, None] + place, start[1:, None] - 1)], many)

    with ThreadPoolExecutor(torch.get_num_threads()) as threads:  # trees and sorting let go of the interpreter
        found = list(threads.map(around, clouds))
    orders = [_strongest(each, size) for each in found] if reduction == "energy" else _farthest(found, size)
    taken = [np.take_along_axis(each.hits, order, axis=1) for each, order in zip(found, orders, strict=True)]
    return [
        Patches(*map(torch.from_numpy, (each.centre, members, np.minimum(each.many, size))))
        for each, members in zip(found, taken, strict=True)
    ]


def _farthest(found: Sequence[Balls], size: int) -> list[NDArray[np.int64]]:
    """Which places of the balls are taken, farthest first: int64 `[M, S]` of each cloud.

    Balls of all clouds are thinned together: those of one are too few to keep a processor busy.
    """
    widest = max(each.hits.shape[1] for each in found)
    inside = [torch.from_numpy(each.points[each.hits, :3].astype(np.float64)) for each in found]
    points = torch.cat([F.pad(each, (0, 0, 0, widest - each.shape[1])) for each in inside])  # [M of all, W, 3]
    many, rows = torch.from_numpy(np.concatenate([each.many for each in found])), max(1, THINNED // widest)
    taken = [farthest_points(p, size, m) for p, m in zip(points.split(rows), many.split(rows), strict=True)]
    return [order.numpy() for order in torch.cat(taken).split([len(each) for each in inside])]


def _strongest(found: Balls, size: int) -> NDArray[np.int64]:
    """Which places of the balls are taken, those with the largest fourth channel first: int64 `[M, S]`."""
    inside = np.arange(found.hits.shape[1]) < found.many[:, None]
    order = np.argsort(-np.where(inside, found.points[found.hits, 3], -np.inf), axis=1, kind="stable")[:, :size]
    order = np.pad(order, ((0, 0), (0, size - order.shape[1])))
    return np.where(np.arange(size) < found.many[:, None], order, order[:, :1])


def collate(clouds: Sequence[Patches], places: int | None = None) -> Groups:
    """The tokens of several clouds as a batch.

    Args:
        clouds: of equal S.
        places: T; None for as many as the largest cloud needs.

    Raises:
        TacitError: a cloud has more tokens than there are places.
    """
    longest = max(len(each.centre) for each in clouds)
    places = longest if places is None else places
    if longest > places:
        raise TacitError(f"a cloud has {longest} tokens, {places} are allowed; raise the context length or the radius")

    def stack(rows: list[Tensor], empty: int) -> Tensor:
        return torch.stack([F.pad(row, (0, 0) * (row.ndim - 1) + (0, places - len(row)), value=empty) for row in rows])

    centre, members, filled = (list(each) for each in zip(*clouds, strict=True))
    return Groups(stack(centre, -1), stack(members, -1), stack(filled, 0))


def contents(points: Tensor, groups: Groups, radius: float | None, mean_centres: bool = False) -> tuple[Tensor, Tensor]:
    """What the tokens hold: coordinates relative to the centre and divided by the radius, features as they are.

    Args:
        points: `[B, N, 3 + F]`.
        groups: of these clouds, or of the same clouds before a rotation or shift.
        radius: what relative coordinates are divided by; None for neighbourhoods that have none.
        mean_centres: let the mean of a token's points be its centre, not the point that was kept.

    Returns:
        Tokens `[B, T, S, 3 + F]` and centres `[B, T, 3]`; both 0 in empty places.
    """
    held = gather(points, groups.members)
    if mean_centres:
        true = groups.point_mask[..., None]
        centres = (held[..., :3] * true).sum(2) / groups.filled.clamp(min=1)[..., None]
    else:
        centres = gather(points[..., :3], groups.centre)
    centres = centres * groups.valid[..., None]
    relative = (held[..., :3] - centres[:, :, None]) / (1.0 if radius is None else radius)
    return torch.cat([relative, held[..., 3:]], dim=-1) * groups.valid[..., None, None], centres


def radius_of(fine: float, coarse: float, tokens: int) -> float:
    """A radius for about so many tokens, from what share of a cloud's pictures has points in it (`data.kinds.points.picture`).

    How many cells of any size a cloud fills follows from how many it fills of two sizes: a power of the size. Centres lie about
    1.44 radii apart, and a typical cloud is about 1.4 wide in the views' units.

    Args:
        fine: of the 64 x 64 cells.
        coarse: of the 8 x 8 patches of these.
        tokens: of a cloud.
    """
    few, many = math.log(max(coarse * 64, 1)), math.log(max(fine * 64**2, 2))
    place = (math.log(tokens) - few) / max(many - few, 0.1 * math.log(8))  # 0 at the coarse size, 1 at the fine one
    return float(f"{1.4 / 8 * 8**-place / 1.44:.3g}")
