"""Cutting clouds of points into tokens, beside a plain loop over clouds in PyTorch on the same processor.

python benchmarks/grouping.py [--clouds 32] [--pairs 5]

Farthest points, balls, nearest neighbours, and balls around centres that were thinned (what PoLAr-MAE does). Both sides give
the same numbers, in the same precision. Goal: three times as fast. Once on one thread, as in one of several processes that load
data, and once on all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from pairs import alternate, asked, keep, row, show, summary, times
from torch import Tensor

from tacit.nn.points.grouping import collate, volumetric
from tacit.nn.points.sampling import ball_query, farthest_points, gather, nearest

POINTS, CENTRES, NEIGHBOURS, RADIUS = (1024, 2048), 128, 32, 0.12
OVERLAP, LISTED, MOST = 0.72, 256, 256
"""Of thinned centres: see `volumetric`."""

Clouds = Sequence[Tensor]


def spread(points: Tensor, count: int) -> Tensor:
    """Farthest points of one cloud."""
    left, taken = torch.full((len(points),), torch.inf, dtype=points.dtype), [0]
    for _ in range(count - 1):
        left = torch.minimum(left, (points - points[taken[-1]]).square().sum(1))
        left[taken[-1]] = -torch.inf
        taken.append(int(left.argmax()))
    return torch.tensor(taken)


def distances(points: Tensor, centres: Tensor) -> Tensor:
    """Squared, `[T, N]`."""
    return (centres[:, None] - points).square().sum(2)


def ball(points: Tensor, centres: Tensor, radius: float, count: int) -> Tensor:
    """The first points of each ball; as the well-known code does it: numbers of points outside are made large, then sorted."""
    index = torch.arange(len(points)).expand(len(centres), -1).clone()
    index[distances(points, centres) >= radius * radius] = len(points)
    first = index.sort(dim=1).values[:, :count]
    return first.masked_fill(first == len(points), -1)


def thinned(points: Tensor) -> Tensor:
    """Centres whose balls overlap by so much and no more: those with most neighbours first."""
    near = distances(points, points) < (2 * RADIUS * OVERLAP) ** 2
    near &= near.cumsum(1) <= LISTED
    stays = torch.ones(len(points), dtype=torch.bool)
    for point in near.sum(1).argsort(descending=True, stable=True).tolist():
        if stays[point]:
            stays[near[point]] = False
            stays[point] = True
    return stays.nonzero()[:, 0]


def volumes(points: Tensor) -> tuple[Tensor, Tensor]:
    """Thinned centres, and the points of each ball, farthest first; slots that are left over repeat the first."""
    centres, members = thinned(points), []
    for centre in centres:
        inside = (distances(points, points[None, centre])[0] < RADIUS * RADIUS).nonzero()[:MOST, 0]
        order = inside[spread(points[inside], min(len(inside), NEIGHBOURS))]
        members.append(torch.cat([order, order[:1].expand(NEIGHBOURS - len(order))]))
    return centres, torch.stack(members)


def sides(clouds: Clouds) -> dict[str, tuple[Callable[[], Sequence[Tensor]], Callable[[], Sequence[Tensor]]]]:
    """Every operation by name: tacit's and the loop, each giving a tensor for every cloud."""
    sizes = torch.tensor([len(cloud) for cloud in clouds])
    batch = torch.nn.utils.rnn.pad_sequence(list(clouds), batch_first=True)
    taken = farthest_points(batch, CENTRES, sizes)
    around, arrays = gather(batch, taken), [cloud.double().numpy() for cloud in clouds]
    pairs = list(zip(clouds, around, strict=True))

    def tokens() -> Sequence[Tensor]:
        found = collate(volumetric(arrays, RADIUS, OVERLAP, LISTED, NEIGHBOURS, MOST))
        return [members[valid] for members, valid in zip(found.members, found.valid, strict=True)]

    return {
        f"{CENTRES} farthest points": (
            lambda: farthest_points(batch, CENTRES, sizes).unbind(),
            lambda: [spread(cloud, CENTRES) for cloud in clouds],
        ),
        f"balls around {CENTRES} points, at most {NEIGHBOURS} in each": (
            lambda: ball_query(batch, around, RADIUS, NEIGHBOURS, sizes).unbind(),
            lambda: [ball(cloud, centres, RADIUS, NEIGHBOURS) for cloud, centres in pairs],
        ),
        f"{NEIGHBOURS} nearest neighbours of {CENTRES} points": (
            lambda: nearest(batch, around, NEIGHBOURS, sizes).unbind(),
            lambda: [distances(cloud, at).topk(NEIGHBOURS, largest=False).indices for cloud, at in pairs],
        ),
        f"balls around thinned centres, at most {NEIGHBOURS} in each, farthest first": (
            tokens,
            lambda: [volumes(cloud.double())[1] for cloud in clouds],
        ),
    }


def case(name: str, clouds: Clouds, ours: Any, theirs: Any, pairs: int, threads: int) -> dict[str, Any]:
    """One operation on so many threads."""
    torch.set_num_threads(threads)
    assert all(torch.equal(mine, other) for mine, other in zip(ours(), theirs(), strict=True)), name
    seconds = alternate({"tacit": ours, "loop": theirs}, pairs)
    show(seconds)
    on = "one thread" if threads == 1 else f"{threads} threads"
    what = f"{name}: {len(clouds)} clouds of {POINTS[0]:,} to {POINTS[1]:,} points, on {on}"
    return row(what, "a loop over clouds in PyTorch", times(seconds, "tacit", "loop"), 1 / 3) | {"seconds": summary(seconds)}


def main() -> None:
    """All operations, on points in a unit cube."""
    words = asked(pairs=5, clouds=32)
    generator = torch.Generator().manual_seed(0)
    counts = torch.randint(*POINTS, (words.clouds,), generator=generator).tolist()
    clouds = [torch.rand(count, 3, generator=generator) for count in counts]
    operations, every = sides(clouds).items(), sorted({1, torch.get_num_threads()})
    rows = [case(name, clouds, *both, words.pairs, threads) for name, both in operations for threads in every]
    keep("grouping", {"rows": rows})


if __name__ == "__main__":
    main()
