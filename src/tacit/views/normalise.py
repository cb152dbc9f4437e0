"""What values in `[0, 1]` are called inside an encoder."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from tacit.core.errors import TacitError
from tacit.data.kinds.kind import sides
from tacit.data.spec import Spec

Normalise = Literal["data", "imagenet", "films", "clip", "none"]

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_FILMS = ((0.45,), (0.225,))
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
# A channel that hardly varies is not blown up to noise; a step of 8-bit data is 0.004. What has no pixels has units of its own.
_LEAST_STD = 1e-3


TOLD = ("scale: x = (value - low) / (high - low), clipped to [0, 1]", "normalise: x = (x - mean) / std, channel by channel")
"""In words, for other programs: what a view of pixels takes a sample's values through."""


def statistics(normalise: Normalise, spec: Spec) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation, float32 `[C]`, that a view takes away and divides by.

    `data`: those of the data itself. `imagenet`: the numbers that published encoders were trained with, three channels
    only; so is `clip`. `films`: what models of films usually take, 0.45 and 0.225. `none`: 0 and 1.
    """
    if normalise in ("imagenet", "clip") and spec.channels != 3:
        whose = {"imagenet": "ImageNet", "clip": "CLIP"}[normalise]
        raise TacitError(f"{whose}'s mean and deviation are for 3 channels, the data has {spec.channels}; use normalise=data")
    own, still = (spec.mean, spec.std), ((0.0,), (1.0,))
    mean, std = {"data": own, "imagenet": _IMAGENET, "films": _FILMS, "clip": _CLIP, "none": still}[normalise]
    least = _LEAST_STD if sides(spec.kind, spec.size) else 0.0
    return (
        torch.tensor(mean, dtype=torch.float32).expand(spec.channels),
        torch.tensor(std, dtype=torch.float32).clamp(min=least).expand(spec.channels),
    )


def to_unit(view: Tensor, normalise: Normalise, spec: Spec) -> Tensor:
    """A normalised view `[..., C, H, W]` back in `[0, 1]`, to be looked at."""
    mean, std = (each.to(view)[:, None, None] for each in statistics(normalise, spec))
    return (view * std + mean).clamp(0, 1)
