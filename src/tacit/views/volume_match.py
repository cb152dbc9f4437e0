"""Which voxel of another volume shows what a voxel shows: looked up in what a frozen network said of both, once and before."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tacit.core.draws import Draws
from tacit.data.maps import Maps
from tacit.data.spec import Batch
from tacit.views.volume_crops import descriptors, first_good, match

AT_ONCE = 8
"""Tries that are looked up together: most first ones are good, and a product of a few is as quick as one of one."""


class Found(NamedTuple):
    """Voxels that show the same.

    Attributes:
        here, there: int64 `[B, 3]`, in the volumes and in their partners.
        score: float32 `[B, 1]`, their similarity, in `[-1, 1]`.
    """

    here: Tensor
    there: Tensor
    score: Tensor


class Matching:
    """Finds pairs of voxels by the descriptors of whole volumes (Alice, steps 2 and 3), one volume at a time.

    Args:
        maps: fine and coarse unit vectors `[D, *grid]` of every volume of the index, at one spacing for all.
        stride: voxels to a fine cell.
        threshold: the first try with a higher score is taken; if there is none, the last.
    """

    def __init__(self, maps: Maps, stride: int, threshold: float) -> None:
        self.maps, self.stride, self.threshold = maps, stride, threshold
        self._last: tuple[tuple[int, ...], Found] | None = None

    def __call__(self, batch: Batch, other: Batch, points: Tensor, otherwise: Tensor, draws: Draws) -> Found:
        """The pair of each sample and its partner.

        Args:
            batch, other: the volumes and their partners; only ids and sizes are looked at.
            points: int64 `[B, n, 3]`, voxels to try.
            otherwise: int64 `[B, 3]`, what belongs to the first of them where nothing was said of a volume (it cannot be read).
            draws: what the points were made with; views of the same batch ask for the same pairs.
        """
        asked = (draws.seed, draws.epoch, *batch.ids.tolist(), *other.ids.tolist())
        if self._last is None or self._last[0] != asked:
            rows = [self._pair(*row) for row in zip(batch.ids, other.ids, points, other.sizes, otherwise, strict=True)]
            self._last = asked, Found(*map(torch.stack, zip(*rows, strict=True)))
        return self._last[1]

    def _pair(self, here: Tensor, there: Tensor, points: Tensor, sizes: Tensor, otherwise: Tensor) -> tuple[Tensor, ...]:
        if int(here) not in self.maps or int(there) not in self.maps:
            return points[0], otherwise, torch.zeros(1, device=points.device)
        query, key = (self.described(int(row)).to(points.device) for row in (here, there))
        same = torch.ones(1, 3, device=points.device)
        found, score = points, torch.zeros(1)
        for tried in points.split(AT_ONCE):
            places, scores = match(query, key, tried[None], same, same, self.stride, sizes[None])
            chosen = int(first_good(scores, self.threshold))
            found, score, points = places[0, chosen], scores[0, chosen, None], tried[chosen]
            if bool(score > self.threshold):
                break
        return points, found, score

    def described(self, row: int) -> Tensor:
        """float32 `[1, D + D', *grid]`, see `descriptors`."""
        fine, coarse = (torch.from_numpy(each[None].astype("float32")) for each in self.maps[row])
        return descriptors(fine, coarse)
