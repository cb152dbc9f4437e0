"""Contrast: every row has to pick its partner out of many. Pure functions; logits are float32 at least, also under autocast."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from tacit.objectives.precision import as_given, wide


def similarities(a: Tensor, b: Tensor, temperature: float, floor: float | None = 1e-12) -> Tensor:
    """`a_i . b_j / (|a_i| |b_j| temperature)`: `[N, D]`, `[M, D]` -> `[N, M]`.

    Args:
        a, b: rows to compare.
        temperature: what the products are divided by.
        floor: the least length that a row is divided by; None leaves the rows as they are.
    """
    with as_given(a.device):
        a, b = wide(a), wide(b)
        if floor is not None:
            a, b = F.normalize(a, dim=-1, eps=floor), F.normalize(b, dim=-1, eps=floor)
        return a @ b.T / temperature


def nt_xent_logits(
    view1: Tensor,
    view2: Tensor,
    temperature: float,
    all1: Tensor | None = None,
    all2: Tensor | None = None,
    offset: int = 0,
    normalise: bool = True,
) -> tuple[Tensor, Tensor]:
    """What NT-Xent puts into its cross-entropy.

    Args:
        view1, view2: `[N, D]`, two views of the same samples, not normalised.
        temperature: t.
        all1, all2: `[M, D]`, the views of all ranks with gradients; the local ones if None.
        offset: where this rank's rows begin among all: `rank * N`.
        normalise: whether rows are put on the sphere (floor of the length 1e-6, the root of the official 1e-12).

    Returns:
        logits `[2 N, 2 M]`, a row's similarity to itself minus 1e9 as in the official code, and int64 `[2 N]`, where the
        partner of each row is.
    """
    all1, all2 = view1 if all1 is None else all1, view2 if all2 is None else all2
    rows, columns = len(view1), len(all1)
    logits = similarities(torch.cat([view1, view2]), torch.cat([all1, all2]), temperature, 1e-6 if normalise else None)
    place = offset + torch.arange(rows, device=logits.device)
    itself, partner = torch.cat([place, columns + place]), torch.cat([columns + place, place])
    alone = torch.zeros_like(logits).scatter_(1, itself[:, None], 1e9)
    return logits - alone, partner


def nt_xent(
    view1: Tensor,
    view2: Tensor,
    temperature: float,
    all1: Tensor | None = None,
    all2: Tensor | None = None,
    offset: int = 0,
    reduction: str = "official",
    normalise: bool = True,
) -> Tensor:
    """`-s_i,partner + log sum_(j != i) exp s_ij` with `s = cosine / t` (Chen et al. 2020).

    Args:
        reduction: `official` adds the mean over first views and the mean over second views; `paper` is half of that.

    The other arguments are those of `nt_xent_logits`. The mean over ranks is the loss of the whole batch on one device.
    """
    logits, partner = nt_xent_logits(view1, view2, temperature, all1, all2, offset, normalise)
    loss = F.cross_entropy(logits, partner)
    return 2 * loss if reduction == "official" else loss


def nt_xent_chance(samples: int, reduction: str = "official") -> float:
    """The loss when all rows are alike: `log(2 N - 1)`, twice that in the official reduction."""
    return math.log(2 * samples - 1) * (2 if reduction == "official" else 1)


def moco_logits(query: Tensor, keys: Tensor, temperature: float, offset: int = 0) -> tuple[Tensor, Tensor]:
    """Logits `[N, M]` of queries `[N, D]` against the keys `[M, D]` of all ranks (never a gradient), and the targets `[N]`."""
    target = offset + torch.arange(len(query), device=query.device)
    return similarities(query, keys.detach(), temperature), target


def moco(query: Tensor, keys: Tensor, temperature: float, offset: int = 0) -> Tensor:
    """`2 T * mean cross-entropy` of one direction (MoCo v3): queries of one view, keys of the other; see `moco_logits`."""
    return 2 * temperature * F.cross_entropy(*moco_logits(query, keys, temperature, offset))


def moco_chance(samples: int, temperature: float) -> float:
    """The sum of both directions when all keys are alike, over all ranks' samples: `4 T log N`."""
    return 4 * temperature * math.log(samples)
