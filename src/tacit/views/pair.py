"""The view of a caption."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from tacit.core.draws import Draws
from tacit.data.spec import Batch, Spec


@dataclass(frozen=True)
class CaptionView:
    """The tokens of each sample's caption, int64 `[B, C]`, as the loader gave them."""

    def __call__(self, batch: Batch, draws: Draws, spec: Spec) -> Tensor:  # noqa: ARG002  (nothing is drawn here)
        return batch.extra["tokens"]
