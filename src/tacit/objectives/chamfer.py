"""How far two sets of points are from each other. Pure functions."""

from __future__ import annotations

import torch
from torch import Tensor

from tacit.objectives.precision import wide


def chamfer(prediction: Tensor, target: Tensor) -> Tensor:
    """`mean_i min_j |x_i - y_j|^2 + mean_j min_i |y_j - x_i|^2` of each pair of sets.

    Args:
        prediction: x, `[M, P, C]`; every channel counts alike.
        target: y, `[M, Q, C]`.

    Returns:
        `[M]`, in squared units of the points, in float32 at least.
    """
    x, y = wide(prediction), wide(target)
    to_y, to_x = _nearest(x, y)
    return _gap(x, y, to_y).mean(1) + _gap(y, x, to_x).mean(1)


def ragged_chamfer(prediction: Tensor, target: Tensor, lengths: Tensor) -> Tensor:
    """`chamfer` of the first n points of each set alone: further predictions take no part (PoLAr-MAE).

    Args:
        prediction, target: `[M, S, C]`.
        lengths: int `[M]`, n of each pair, at least 1.

    Returns:
        `[M]`; its mean over the sets is PoLAr-MAE's loss.
    """
    x, y = wide(prediction), wide(target)
    true = torch.arange(x.shape[1], device=x.device) < lengths[:, None]
    to_y, to_x = _nearest(x, y, true)
    gap = _gap(x, y, to_y) + _gap(y, x, to_x)
    return gap.masked_fill(~true, 0).sum(1) / lengths


@torch.no_grad()
def _nearest(x: Tensor, y: Tensor, true: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Which of y each x is nearest to, and the other way round: int64 `[M, P]` and `[M, Q]`, among true ones `[M, P = Q]`.

    Found without gradient, so that what is kept for the backward pass is of the size of the points, not of their pairs.
    """
    distance = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")  # [M, P, Q]
    if true is None:
        return distance.argmin(2), distance.argmin(1)
    return (
        distance.masked_fill(~true[:, None], torch.inf).argmin(2),
        distance.masked_fill(~true[:, :, None], torch.inf).argmin(1),
    )


def _gap(x: Tensor, y: Tensor, index: Tensor) -> Tensor:
    """`|x_i - y_index(i)|^2`: `[M, P]`."""
    return (x - y.gather(1, index[..., None].expand(-1, -1, y.shape[-1]))).square().sum(-1)
