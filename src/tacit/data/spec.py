"""What samples look like, and what a batch of them is: the two things every room above `data` sees of the data."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

import torch
from pydantic import Field, FiniteFloat, PositiveInt, TypeAdapter
from torch import Tensor


@dataclass(frozen=True)
class Spec:
    """What the samples of one source look like. Frozen in the run's configuration and beside the encoder.

    Attributes:
        kind: the kind of data, `image` for one.
        channels: how many channels a decoded sample has.
        size: height and width (for volumes also depth, first) that samples typically have once decoded, in pixels.
        low, high: the stored values that mean 0 and 1 (0 and 255 for 8-bit images; robust extremes for others).
        mean, std: per channel, of values scaled to `[0, 1]` by `low` and `high`.
        names: the channels' names, as far as they are known.
    """

    kind: str
    channels: PositiveInt
    size: Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
    low: FiniteFloat = 0.0
    high: FiniteFloat = 255.0
    mean: tuple[FiniteFloat, ...] = (0.5,)
    std: tuple[Annotated[FiniteFloat, Field(gt=0)], ...] = (0.25,)
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.low < self.high or not {len(self.mean), len(self.std)} <= {1, self.channels}:
            raise ValueError(f"{self} contradicts itself")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Spec:
        """The spec that `to_dict` told, from a file perhaps: a `ValueError` where it is none."""
        return TypeAdapter(cls).validate_python(values)


@dataclass
class Batch:
    """Decoded samples on their way to the views.

    Attributes:
        ids: int64 `[B]`, rows of the index; what draws are counted by.
        data: `[B, C, *extent]` uint8, uint16 or float32, padded at the end of each axis where sizes differ.
        sizes: int32 `[B, len(extent)]`, the true extent of every sample.
        extra: further tensors with B rows, by name (a mask, a caption's tokens).
    """

    ids: Tensor
    data: Tensor
    sizes: Tensor
    extra: dict[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=non_blocking)

        return Batch(move(self.ids), move(self.data), move(self.sizes), {k: move(v) for k, v in self.extra.items()})

    def rows(self, start: int, stop: int) -> Batch:
        """A part of the batch, without copying."""
        cut = slice(start, stop)
        return Batch(self.ids[cut], self.data[cut], self.sizes[cut], {k: v[cut] for k, v in self.extra.items()})
