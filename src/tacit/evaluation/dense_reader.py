"""The contract of a reader: what an encoder says about the places of samples (points, pixels, voxels) of one kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from torch import Tensor

from tacit.data.spec import Batch


class Tokens(NamedTuple):
    """The tokens of one sample.

    Attributes:
        features: float32 `[L, D]`.
        members: int64 `[L, S]`, the places that each was made of, then -1.
    """

    features: Tensor
    members: Tensor


class Reader(Protocol):
    """One encoder, or raw input, as the dense protocols see it. Places are counted with the last axis fastest."""

    background: bool
    """Whether the label 0 means what lies around things, which means over classes then leave out."""

    def tokens(self, batch: Batch) -> list[Tokens]:
        """The tokens of each sample, on the CPU."""
        ...

    def features(self, batch: Batch, places: Sequence[Tensor]) -> list[Tensor]:
        """Of each sample, features of these places, int64 `[n]`: float32 `[n, D]`, on the CPU."""
        ...

    def scores(self, batch: Batch, weight: Tensor, bias: Tensor) -> list[Tensor]:
        """A linear head `[D, K]`, `[K]` on the features of all places of each sample: `[P, K]`, on the CPU.

        The head is applied to tokens and its scores are carried to the places, which is the same and takes less memory.
        """
        ...
