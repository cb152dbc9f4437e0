"""The contract of a view: a batch, its draws and what its numbers mean go in; a tensor for the encoder comes out."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from tacit.core.draws import Draws
from tacit.data.spec import Batch, Spec


class View(Protocol):
    """How a method is shown a sample. Made for the whole batch at once, on the batch's device."""

    def __call__(self, batch: Batch, draws: Draws, spec: Spec) -> Tensor:
        """float32 `[B, C, *extent]`; the same samples and draws give the same tensor, however they are batched."""
        ...
