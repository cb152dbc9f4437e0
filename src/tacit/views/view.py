"""The contract of a view: a batch, its draws and what its numbers mean go in; a tensor for the encoder comes out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from tacit.core.draws import Draws
from tacit.data.spec import Batch, Spec
from tacit.data.window import Window


class View(Protocol):
    """How a method is shown a sample. Made for the whole batch at once, on the batch's device."""

    def __call__(self, batch: Batch, draws: Draws, spec: Spec) -> Tensor:
        """float32 `[B, C, *extent]`; the same samples and draws give the same tensor, however they are batched."""
        ...


def windows(views: Mapping[str, View]) -> dict[str, Window]:
    """Which parts of samples these views want: those that have a `window` are given nothing else."""
    wanted = {name: getattr(view, "window", None) for name, view in views.items()}
    return {name: window for name, window in wanted.items() if window is not None}
