"""What values in `[0, 1]` are called inside an encoder."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from tacit.core.errors import TacitError
from tacit.data.spec import Spec

Normalise = Literal["data", "imagenet", "none"]

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# A channel that hardly varies is not blown up to noise; a step of 8-bit data is 0.004.
_LEAST_STD = 1e-3


def statistics(normalise: Normalise, spec: Spec) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation, float32 `[C]`, that a view takes away and divides by.

    `data`: those of the data itself. `imagenet`: the numbers that published encoders were trained with, three channels
    only. `none`: 0 and 1.
    """
    if normalise == "imagenet" and spec.channels != 3:
        raise TacitError(f"ImageNet's mean and deviation are for 3 channels, the data has {spec.channels}; use normalise=data")
    mean, std = {"data": (spec.mean, spec.std), "imagenet": _IMAGENET, "none": ((0.0,), (1.0,))}[normalise]
    return (
        torch.tensor(mean, dtype=torch.float32).expand(spec.channels),
        torch.tensor(std, dtype=torch.float32).clamp(min=_LEAST_STD).expand(spec.channels),
    )


def to_unit(view: Tensor, normalise: Normalise, spec: Spec) -> Tensor:
    """A normalised view `[..., C, H, W]` back in `[0, 1]`, to be looked at."""
    mean, std = (each.to(view)[:, None, None] for each in statistics(normalise, spec))
    return (view * std + mean).clamp(0, 1)
