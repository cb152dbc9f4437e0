"""What samples look like, and what a batch of them is: the two things every room above `data` sees of the data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

import numpy as np
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
        stride: frames of a sample from one frame that is shown to the next; 1 where nothing moves.
    """

    kind: str
    channels: PositiveInt
    size: Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
    low: FiniteFloat = 0.0
    high: FiniteFloat = 255.0
    mean: tuple[FiniteFloat, ...] = (0.5,)
    std: tuple[Annotated[FiniteFloat, Field(gt=0)], ...] = (0.25,)
    names: tuple[str, ...] = ()
    stride: PositiveInt = 1

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
        parts: where views want parts of samples of their own, those, by the view's name; `data` is then one of them.
    """

    ids: Tensor
    data: Tensor
    sizes: Tensor
    extra: dict[str, Tensor] = field(default_factory=dict)
    parts: dict[str, Batch] = field(default_factory=dict)

    @classmethod
    def padded(cls, ids: Tensor, samples: Sequence[np.ndarray]) -> Batch:
        """Samples `[C, *extent]` as one batch, padded with zeros where their extents differ."""
        sizes = np.array([sample.shape[1:] for sample in samples], dtype=np.int32)
        most = tuple(sizes.max(axis=0))
        if all(sample.shape[1:] == most for sample in samples):
            return cls(ids, torch.from_numpy(np.stack(samples)), torch.from_numpy(sizes))
        data = np.zeros((len(samples), samples[0].shape[0], *most), dtype=samples[0].dtype)
        for row, sample in zip(data, samples, strict=True):
            row[(slice(None), *map(slice, sample.shape[1:]))] = sample
        return cls(ids, torch.from_numpy(data), torch.from_numpy(sizes))

    def of(self, view: str) -> Batch:
        """What a view of this name is made from."""
        return self.parts.get(view, self)

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        return self.each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def rows(self, start: int, stop: int) -> Batch:
        """A part of the batch, without copying."""
        return self.each(lambda tensor: tensor[start:stop])

    def each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """The batch with every tensor changed in the same way."""
        extra = {name: change(tensor) for name, tensor in self.extra.items()}
        parts = {name: part.each(change) for name, part in self.parts.items()}
        return Batch(change(self.ids), change(self.data), change(self.sizes), extra, parts)
