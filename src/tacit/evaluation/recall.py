"""Recall of partners: does an image find its caption among all, and a caption its image. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tacit.evaluation.neighbours import BLOCK, ranks
from tacit.objectives.precision import wide

DEPTHS = (1, 5, 10)


@dataclass(frozen=True)
class Found:
    """How far up the partners came, one direction.

    Attributes:
        ranks: int64 `[Q]`, how many candidates came before the best partner of each query: 0 is the first place.
        right: int64 `[Q]`, how many candidates would have been right.
        among: how many candidates there were.
    """

    ranks: Tensor
    right: Tensor
    among: int

    def at(self, depth: int) -> float:
        """Recall@depth: the share of queries with a partner among the first `depth`, in `[0, 1]`."""
        return float((self.ranks < depth).double().mean())

    def chance(self, depth: int) -> float:
        """Recall@depth of an order drawn blindly; depth / among where each query has one partner."""
        missed = torch.ones(len(self.right), dtype=torch.float64)
        for place in range(min(depth, self.among)):
            missed *= ((self.among - place - self.right.cpu()) / (self.among - place)).clamp(min=0)
        return float(1 - missed.mean())

    @property
    def mean_rank(self) -> float:
        """Counted from 1."""
        return float(self.ranks.double().mean()) + 1

    @property
    def median_rank(self) -> int:
        """Counted from 1; between two middle ranks the one below their mean."""
        return int(self.ranks.double().quantile(0.5).floor()) + 1

    def values(self) -> dict[str, float]:
        """`recall@1`, `recall@5`, `recall@10`, `mean_rank`, `median_rank`."""
        return {f"recall@{k}": self.at(k) for k in DEPTHS} | {"mean_rank": self.mean_rank, "median_rank": self.median_rank}


def place_of_best(cosine: Tensor, right: Tensor) -> Tensor:
    """How many candidates come before the first right one; of equal cosines the lower index comes first.

    Args:
        cosine: `[Q, G]`; what differs by less than a step of `neighbours.GRID` is equal.
        right: bool `[Q, G]`, at least one in each row.

    Returns:
        int64 `[Q]`.
    """
    order = ranks(cosine, torch.arange(cosine.shape[1], device=cosine.device))
    best = order.masked_fill(~right, torch.iinfo(torch.int64).min).amax(dim=1, keepdim=True)
    return (order > best).sum(dim=1)


@torch.no_grad()
def recall(images: Tensor, captions: Tensor, owner: Tensor | None = None, wording: Tensor | None = None) -> tuple[Found, Found]:
    """Images look for captions, and captions for images, by cosine.

    An image has found a caption when the best of its own came up; a caption has one image. Captions that read alike cannot be
    told apart: each counts as a caption of every image that has one of that wording.

    Args:
        images: `[n, D]`, of any length.
        captions: `[m, D]`.
        owner: int64 `[m]`, the image of each caption, every image having one at least; caption i belongs to image i if None.
        wording: int64 `[m]`, equal for captions that read alike; all differ if None.

    Returns:
        image to text, over n queries; text to image, over m queries.
    """
    count, device = len(captions), captions.device
    owner = torch.arange(count, device=device) if owner is None else owner
    wording = torch.arange(count, device=device) if wording is None else wording.unique(return_inverse=True)[1]
    wordings = int(wording.max()) + 1
    images, captions = F.normalize(wide(images), dim=-1), F.normalize(wide(captions), dim=-1)
    to_text, to_image, captions_right, images_right = [], [], [], []
    step = max(1, BLOCK // max(len(images), count))
    for block in torch.arange(len(images), device=device).split(step):
        mine = (owner >= block[0]) & (owner <= block[-1])
        says = torch.zeros(len(block), wordings, dtype=torch.bool, device=device)
        says[owner[mine] - block[0], wording[mine]] = True
        to_text.append(place_of_best(images[block] @ captions.T, says[:, wording]))
        captions_right.append(says[:, wording].sum(dim=1))
    for block in torch.arange(count, device=device).split(step):
        row, caption = (wording[block][:, None] == wording).nonzero(as_tuple=True)
        right = torch.zeros(len(block), len(images), dtype=torch.bool, device=device)
        right[row, owner[caption]] = True
        to_image.append(place_of_best(captions[block] @ images.T, right))
        images_right.append(right.sum(dim=1))
    return (
        Found(torch.cat(to_text), torch.cat(captions_right), count),
        Found(torch.cat(to_image), torch.cat(images_right), len(images)),
    )
