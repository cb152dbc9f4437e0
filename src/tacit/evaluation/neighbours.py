"""Nearest neighbours by cosine, in blocks, with ties broken the same way everywhere."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 2**23
"""How many similarities exist at a time: 32 MB, and twice as much for their order."""

GRID = 2**20
"""Similarities nearer than one step of this grid are equal: float32 sums differ by as much between devices and block sizes."""


SPARE = 12
"""So many more than asked for are looked at, to see whether the last of them has equals farther down."""


def similarity_blocks(queries: Tensor, gallery: Tensor, itself: bool = False) -> Iterator[tuple[slice, Tensor]]:
    """The cosine of every query with the whole gallery, a block of queries at a time.

    Args:
        queries: float `[Q, D]`, gallery: float `[N, D]`; rows of zeros have the similarity 0 with everything.
        itself: queries and gallery are one set, and no sample is its own neighbour.

    Yields:
        which queries; their cosines float32 `[b, N]`.
    """
    queries, gallery = F.normalize(queries.float()), F.normalize(gallery.float())
    step = max(1, BLOCK // len(gallery))
    for start in range(0, len(queries), step):
        block = slice(start, min(start + step, len(queries)))
        cosine = queries[block] @ gallery.T
        if itself:
            own = torch.arange(block.start, block.stop, device=gallery.device)
            # Below every cosine, so that it comes last.
            cosine[own - start, own] = -2.0
        yield block, cosine


def ranks(cosine: Tensor, places: Tensor) -> Tensor:
    """Larger for what comes earlier, and never equal: by cosine, then by place in the gallery, first one first.

    Args:
        cosine: float32 `[b, n]`.
        places: int64 `[n]` or `[b, n]`, below 2**31.

    Returns:
        int64 `[b, n]`.
    """
    return on_grid(cosine).mul_(2**31).sub_(places)


def on_grid(cosine: Tensor) -> Tensor:
    """Cosines as int64 steps of the grid."""
    return (cosine * GRID).round_().long()


def nearest(queries: Tensor, gallery: Tensor, k: int, itself: bool = False) -> tuple[Tensor, Tensor]:
    """The k nearest of the gallery for every query.

    Args:
        queries: float `[Q, D]`.
        gallery: float `[N, D]`.
        k: at least 1; cut to what the gallery holds.
        itself: queries and gallery are one set, and no sample is its own neighbour.

    Returns:
        cosines float32 `[Q, k]`, falling, and places in the gallery int64 `[Q, k]`.
    """
    k = min(k, len(gallery) - int(itself))
    all_places = torch.arange(len(gallery), device=gallery.device)
    cosines, places = [], []
    for _, cosine in similarity_blocks(queries, gallery, itself):
        # Ranking all of them exactly would cost several times the product: floats choose, and few are ranked.
        near = cosine.topk(min(k + SPARE, len(gallery)), dim=1)
        first = ranks(near.values, near.indices).topk(k, dim=1).indices
        found = near.indices.gather(1, first)
        unsure = (on_grid(near.values[:, k - 1]) == on_grid(near.values[:, -1])).nonzero()[:, 0]
        if len(unsure) and near.values.shape[1] < len(gallery):
            found[unsure] = ranks(cosine[unsure], all_places).topk(k, dim=1).indices
        cosines.append(cosine.gather(1, found))
        places.append(found)
    return torch.cat(cosines), torch.cat(places)
