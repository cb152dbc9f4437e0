"""Contrast between places of the body: a vector has to find its own place in another crop among those that look most alike.

After "Self-supervised Anatomical eMbedding" (SAM, Yan et al. 2020), which Alice finds its pairs with. Pure functions.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tacit.objectives.precision import as_given, wide


class Pairs(NamedTuple):
    """Cells of two crops that show the same place.

    Attributes:
        first, second: int64 `[B, A]`, cells of the first and of the second crop.
        found: bool `[B, A]`, false where the second crop shows nothing near enough; such pairs count for nothing.
    """

    first: Tensor
    second: Tensor
    found: Tensor


def pairs(places1: Tensor, places2: Tensor, noise: Tensor, count: int, radius: float) -> Pairs:
    """Up to `count` random cells of the first crop, each with the nearest cell of the second.

    Args:
        places1, places2: `[B, M1, 3]`, `[B, M2, 3]`, centres of the crops' cells, in millimetres from one origin.
        noise: `[B, M1]`, uniform numbers in `[0, 1)`: of the cells that may have a partner, those with the smallest are taken.
        count: A, at most M1.
        radius: millimetres that the two places of a pair may lie apart.
    """
    low, high = places2.amin(dim=1, keepdim=True) - radius, places2.amax(dim=1, keepdim=True) + radius
    outside = ((places1 < low) | (places1 > high)).any(dim=-1)
    first = (noise + outside).argsort(dim=1, stable=True)[:, :count]  # who cannot have a partner comes last
    distance, second = torch.cdist(places_at(places1, first), places2).min(dim=-1)
    return Pairs(first, second, distance <= radius)


def places_at(rows: Tensor, cells: Tensor) -> Tensor:
    """`[B, M, D]` at int64 `[B, A]` -> `[B, A, D]`."""
    return rows.gather(1, cells[..., None].expand(-1, -1, rows.shape[-1]))


def anatomy_logits(
    anchors: Tensor,
    positives: Tensor,
    candidates: Tensor,
    allowed: Tensor,
    temperature: float,
    hardest: int,
    strangers: Tensor | None = None,
) -> Tensor:
    """Similarities over the temperature, the positive's first, `[B, A, 1 + n + R]`; what is not allowed is -inf.

    Args:
        anchors, positives: unit vectors `[B, A, D]`.
        candidates: unit vectors `[B, M, D]`, cells of the crops that may serve as negatives.
        allowed: bool `[B, A, M]`, whether a candidate lies far enough from an anchor, and inside of its volume: places in
            padding look all alike, and as the hardest negatives they drive all vectors to one point.
        temperature: what the products are divided by.
        hardest: n, how many of the allowed candidates an anchor keeps, the most similar; at most M.
        strangers: unit vectors `[R, D]`, or `[B, R, D]`, of other volumes: negatives for all anchors.
    """
    with as_given(anchors.device):
        anchors, positives, candidates = wide(anchors), wide(positives), wide(candidates)
        own = (anchors * positives).sum(dim=-1, keepdim=True)  # [B, A, 1]
        others = anchors @ candidates.transpose(-2, -1)
        kept = most(others.detach().masked_fill(~allowed, -torch.inf), min(hardest, others.shape[-1]))
        parts = [own, others.gather(-1, kept).masked_fill(~allowed.gather(-1, kept), -torch.inf)]
        if strangers is not None:
            parts.append(anchors @ wide(strangers).transpose(-2, -1))
        return torch.cat(parts, dim=-1) / temperature


def most(values: Tensor, count: int) -> Tensor:
    """Where the greatest `count` of `[..., M]` lie, in any order: int64 `[..., count]`."""
    if values.device.type == "cpu":  # in a fifth of the time that `topk` takes: nothing is sorted
        return torch.from_numpy(np.argpartition(values.numpy(), -count)[..., -count:])
    return values.topk(count, sorted=False).indices


def anatomy_contrast(
    anchors: Tensor,
    positives: Tensor,
    candidates: Tensor,
    allowed: Tensor,
    found: Tensor,
    temperature: float = 0.5,
    hardest: int = 500,
    strangers: Tensor | None = None,
) -> Tensor:
    """InfoNCE `-log(e^(a.p / t) / (e^(a.p / t) + sum_n e^(a.n / t)))`, its mean over the anchors that have a partner.

    Args:
        found: bool `[B, A]`, see `Pairs`; where there is none in the whole batch, the loss is 0.

    The other arguments are those of `anatomy_logits`.
    """
    logits = anatomy_logits(anchors, positives, candidates, allowed, temperature, hardest, strangers).flatten(0, 1)
    loss = F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64, device=logits.device), reduction="none")
    counts = found.flatten().to(loss.dtype)
    return (loss * counts).sum() / counts.sum().clamp(min=1)
