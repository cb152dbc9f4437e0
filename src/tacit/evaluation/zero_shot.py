"""Classes told by sentences alone: an image takes the class whose prompts lie nearest (Radford et al. 2021). Pure functions."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from tacit.objectives.precision import wide


def classifier(prompts: Tensor) -> Tensor:
    """The unit vector along the mean of each class's unit prompts: `[K, T, D]` -> `[D, K]`."""
    each = F.normalize(wide(prompts), dim=-1, eps=1e-12)
    return F.normalize(each.mean(dim=1), dim=-1, eps=1e-12).T


def class_logits(images: Tensor, classes: Tensor) -> Tensor:
    """100 times the cosines, whatever the trained temperature: `[B, D]` of any length, `[D, K]` -> `[B, K]`."""
    return 100 * F.normalize(wide(images), dim=-1, eps=1e-12) @ classes


def top(logits: Tensor, labels: Tensor, depth: int = 1) -> float:
    """The share of rows whose label is among the `depth` largest of `[B, K]`, in `[0, 1]`; `depth` is cut to K."""
    found = logits.topk(min(depth, logits.shape[1]), dim=1).indices == labels[:, None]
    return float(found.any(dim=1).double().mean())
