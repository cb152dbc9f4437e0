"""How two towers turn while a model learns on (Mod-X, Ni et al. 2023): angles in degrees between features before and after."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tacit.objectives.precision import wide


def rotation(old: Tensor, new: Tensor) -> Tensor:
    """The angle between each sample's feature before and after: `[N, D]` twice, of any length -> `[N]`."""
    return _degrees((_unit(old) * _unit(new)).sum(dim=-1))


def self_angles(features: Tensor) -> Tensor:
    """The angles among the samples of one modality: `[N, D]` -> `[N, N]`."""
    rows = _unit(features)
    return _degrees(rows @ rows.T)


def topology_change(old: Tensor, new: Tensor) -> Tensor:
    """The mean, over all pairs of different samples, of how much the angle between them changed: a scalar."""
    change = (self_angles(new) - self_angles(old)).abs()
    apart = ~torch.eye(len(change), dtype=torch.bool, device=change.device)
    return change[apart].mean()


def deviation(image_old: Tensor, image_new: Tensor, text_old: Tensor, text_new: Tensor) -> Tensor:
    """By how much more one tower turned than the other, per pair: `[N]`. This is what breaks retrieval."""
    return (rotation(image_old, image_new) - rotation(text_old, text_new)).abs()


def _unit(features: Tensor) -> Tensor:
    return F.normalize(wide(features), dim=-1, eps=1e-12)


def _degrees(cosine: Tensor) -> Tensor:
    return torch.rad2deg(torch.arccos(cosine.clamp(-1, 1)))
