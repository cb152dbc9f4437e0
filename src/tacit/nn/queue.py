"""Keys of former steps, to contrast with."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tacit.core import distributed
from tacit.core.errors import TacitError


class Queue(nn.Module):
    """A ring of K keys: the newest take the places of the oldest. It starts with random directions.

    Give `push` the keys of all ranks, in the same order everywhere: then all ranks hold the same queue.

    Args:
        size: K.
        width: D.

    Attributes:
        keys: `[K, D]`, unit rows, without gradient. `clone()` them for a loss whose backward pass comes after `push`.
        owners: int64 `[K]`, whose key each is, or -1.
        pushed: int64 scalar, how many keys have come in. Until these are K, a part of the queue is random.
    """

    keys: Tensor
    owners: Tensor
    pushed: Tensor

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.register_buffer("keys", F.normalize(torch.randn(size, width), dim=1))
        self.register_buffer("owners", torch.full((size,), -1))
        self.register_buffer("pushed", torch.tensor(0))

    @property
    def pointer(self) -> Tensor:
        """int64 scalar, in `[0, K)`: where the next key goes."""
        return self.pushed % len(self.keys)

    @torch.no_grad()
    def push(self, keys: Tensor, owners: Tensor | None = None) -> None:
        """Replace the oldest keys.

        Args:
            keys: `[N, D]`, of unit length, N at most K.
            owners: int64 `[N]`, whose they are (rows of the index).
        """
        if len(keys) > len(self.keys):
            raise TacitError(
                f"{len(keys)} keys do not fit into a queue of {len(self.keys)}; make it longer, or the batch smaller"
            )
        places = (self.pointer + torch.arange(len(keys), device=keys.device)) % len(self.keys)
        self.keys[places] = keys.to(self.keys.dtype)
        self.owners[places] = -1 if owners is None else owners
        self.pushed += len(keys)

    def own(self, samples: Tensor) -> Tensor:
        """Bool `[B, K]`: which keys are of the samples `[B]` themselves, and so no negatives of theirs."""
        return samples[:, None] == self.owners


def whole_batches(size: int, batch: int) -> int:
    """The longest queue of at most `size` keys that holds whole batches, and at least one: `size - size mod batch`."""
    return max(size - size % batch, batch)


def in_other_company(encode: Callable[[Tensor], Tensor], x: Tensor, shuffle: Tensor, splits: int) -> Tensor:
    """Encode the samples of all ranks in shuffled parts, each by itself, and put the rows back in order.

    Batch-norm tells the rows of a batch about each other. Keys that were encoded among other rows than the queries cannot be
    recognised by their company (MoCo's shuffling, without a need for several devices).

    Args:
        encode: `[b, ...]` -> `[b, D]`, of what a rank has of a part.
        x: `[B, ...]`, of this rank.
        shuffle: `[B]`, a random number for each, all different; in the order of these the samples are parted.
        splits: into how many parts, as equal as they can be; 1 encodes the batch as it is.

    Returns:
        `[B, D]`.
    """
    if splits == 1:
        return encode(x)
    every, order = distributed.gather(x), distributed.gather(shuffle).argsort()
    parts = [distributed.gather(encode(every[distributed.mine(part)])) for part in order.tensor_split(splits)]
    return distributed.mine(torch.cat(parts)[order.argsort()])
