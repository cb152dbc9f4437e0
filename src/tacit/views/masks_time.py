"""Masks with an order in time, as ranks for `masks.random_keep` or in its three forms. Places are time-major."""

from __future__ import annotations

import torch
from torch import Tensor

from tacit.core.errors import TacitError
from tacit.views.masks import Hidden, keep_of


def temporal_ranks(length: int) -> Tensor:
    """float64 `[L]`, the place itself: `random_keep` then keeps the first places and hides the end of the clip (MAE-ST)."""
    return torch.arange(length, dtype=torch.float64)


def center_ranks(length: int) -> Tensor:
    """float64 `[L]`, `min(i, L - 1 - i)`: `random_keep` then keeps both ends and hides the middle of the clip (MAE-ST).

    Of two places with equal rank the earlier one is kept first.
    """
    ranks = temporal_ranks(length)
    return torch.minimum(ranks, ranks.flip(0))


def tube_keep(noise: Tensor, slots: int, ratio: float) -> Hidden:
    """Hide the same places in every time slot (VideoMAE): those with the smallest noise, `int(ratio * S)` of S.

    Args:
        noise: `[B, S]`, one uniform number for each place of a frame; equal ones keep their order.
        slots: time slots.
        ratio: share of the places to hide, in `[0, 1)`; as a floating product (0.9 of 49 hide 44).

    Returns:
        The forms of masks over `slots * S` places; what is seen comes in the clip's order.
    """
    places = noise.shape[1]
    count = int(ratio * places)
    if not 0 <= count < places:
        raise TacitError(f"a mask ratio of {ratio} hides {count} of the {places} places of a frame; it has to be in [0, 1)")
    first = noise.argsort(dim=1, stable=True)[:, :count]
    return keep_of(torch.zeros_like(noise).scatter_(1, first, 1).repeat(1, slots))
