"""The tokens of `grouping` by operations on tensors alone, so that they can be exported: programs know no trees.

The same tokens in the same order, by all distances, of a block of points at a time; points take their turns in a loop that
programs have, too (`scan`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from tacit.nn.points.grouping import Groups
from tacit.nn.points.sampling import farthest_points, first_places, gather

BLOCK = 256
"""How many points are set beside all others at a time."""


@torch.no_grad()
def volumetric_groups(
    points: Tensor, there: Tensor, radius: float, overlap: float, neighbours: int, size: int, most: int
) -> Groups:
    """How clouds fall into tokens.

    Args:
        points: `[B, N, 3 + F]`.
        there: bool `[B, N]`, which of them are points and not padding.
        radius, overlap, neighbours, size, most: as in `grouping.volumetric`.

    Returns:
        Indices as `grouping.collate` has them, with two places at least: programs treat one of anything as a special case.
    """
    from torch._higher_order_ops.scan import scan  # no public part of torch yet: none but an export depends on it

    at = points[..., :3].double()  # a radius is strict: as exact as the trees are
    count = at.shape[1]
    number = torch.arange(count, device=at.device)

    def listed(queries: Tensor) -> Tensor:
        """Which points the lists of these places `[B, Q, 3]` name: bool `[B, Q, N]`."""
        near = _within(queries, at, 2 * radius * overlap) & there[:, None]
        return near & (near.long().cumsum(-1) <= neighbours)

    def turn(stays: Tensor, point: Tensor) -> tuple[Tensor, Tensor]:
        """One point `[B]` of each cloud removes all others of its list, if it is still there itself."""
        alive = stays.gather(1, point[:, None])
        others = listed(gather(at, point[:, None]))[:, 0] & (number != point[:, None])
        return stays & ~(alive & others), alive

    many = torch.cat([listed(block).sum(-1) for block in at.split(BLOCK, dim=1)], dim=1)
    order = (many * count + (count - 1 - number)).topk(count, dim=1).indices  # of equal ones the first
    # A copy to begin with: the loop's body reads `there`, too, and an export takes the two for one otherwise.
    stays, _ = scan(turn, there.clone(), order.movedim(1, 0))

    tokens = stays.sum(1).max().clamp(min=2).item()
    torch._check(tokens >= 2)
    torch._check(tokens <= count)
    centre = first_places(stays, count)[:, :tokens]
    valid = centre >= 0
    inside = _within(gather(at, centre), at, radius) & there[:, None] & valid[..., None]
    hits, held = first_places(inside, min(most, count)), inside.sum(-1).clamp(max=most)
    around = gather(at, hits).flatten(0, 1)  # [B T, W, 3]
    taken = farthest_points(around, size, held.flatten().clamp(min=1)).unflatten(0, held.shape)
    members = torch.where(valid[..., None], hits.gather(2, taken), -1)
    return Groups(centre, members, held.clamp(max=size))


def _within(queries: Tensor, points: Tensor, radius: float) -> Tensor:
    """Which of the points `[B, N, 3]` lie strictly within a radius of the queries `[B, Q, 3]`: bool `[B, Q, N]`."""
    x, y, z = (query[..., None] - point[:, None] for query, point in zip(queries.unbind(-1), points.unbind(-1), strict=True))
    return x * x + y * y + z * z < radius * radius
