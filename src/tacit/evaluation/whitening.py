"""Features whose directions count for about as much as each other, so that neighbours are alike in more than one or two."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

FLOOR = 1e-3
"""Directions that vary less than this share of the widest one count as if they varied so much."""


@dataclass(frozen=True)
class Whitening:
    """`(x - mean) @ matrix`: half-way from principal components as they lie to components that all vary alike.

    Every component is divided by the square root of its deviation. By the deviation itself, as PCA whitening has it (Jégou and
    Chum, "Negative evidences and co-occurences in image retrieval", 2012), what hardly varies would count like everything else,
    and from a few hundred samples that is noise.

    Attributes:
        mean: float32 `[D]`.
        matrix: float32 `[D, D']`, D' at most D and the number of samples.
    """

    mean: Tensor
    matrix: Tensor

    @classmethod
    def of(cls, features: Tensor) -> Whitening:
        """From features `[N, D]` of samples that stand for the rest."""
        wide = features.double()
        mean = wide.mean(dim=0)
        _, spread, axes = torch.linalg.svd(wide - mean, full_matrices=False)  # [R], [R, D]
        deviations = spread / max(len(features) - 1, 1) ** 0.5
        widest = deviations.max().clamp(min=torch.finfo(torch.float32).tiny)
        return cls(mean.float(), (axes.T / (deviations + FLOOR * widest).sqrt()).float())

    def __call__(self, features: Tensor) -> Tensor:
        """`[B, D]` -> `[B, D']`, where the features are."""
        return (features - self.mean.to(features.device)) @ self.matrix.to(features.device)
