"""Randomness without history: every number is a pure function of (seed, epoch, sample, name, position).

Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) in integer tensor arithmetic, so the
same bits come out on every device and for every way of splitting a batch. No global generator is ever read.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


def key_of(seed: int, name: str) -> tuple[int, int]:
    """Two 32-bit words that name one stream of draws."""
    digest = hashlib.blake2b(f"{seed}\0{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")


def philox(counter: Tensor, key: Tensor) -> Tensor:
    """Four random 32-bit words for each counter.

    Args:
        counter: int64 `[4, ...]`, each word in `[0, 2**32)`.
        key: int64 `[2, ...]`, each word in `[0, 2**32)`: one for all counters, or one for each (it broadcasts).

    Returns:
        int64 `[4, ...]`, each word in `[0, 2**32)`.
    """
    pair = (2, *[1] * (counter.dim() - 1))
    multipliers, weyl = (torch.tensor(both).view(pair).to(counter.device, non_blocking=True) for both in (_MULTIPLIERS, _WEYL))
    # The published rounds, on pairs of words: half as many operations, and on few numbers their count is the cost.
    even, odd = counter[0::2], counter[1::2]
    for _ in range(_ROUNDS):
        # The product of two 32-bit words wraps in int64, but its bits are right, and so are both halves.
        product = (even * multipliers).flip(0)
        even, odd = ((product >> 32) ^ odd ^ key) & _MASK, product & _MASK
        key = key + weyl  # the mask above cuts it, too
    return torch.stack([even, odd], dim=1).flatten(0, 1)


@dataclass(frozen=True)
class Draws:
    """Random numbers for the samples of one batch.

    `ahead` makes those of many names together. It is for speed alone: it changes no number.

    Attributes:
        seed: the run's seed.
        epoch: which pass over the data, in `[0, 2**32)`.
        samples: int64 `[B]`, what each row is called in the index; decides the device of the numbers.
        scope: a prefix of every name; `within` makes it longer.
        made: the words, int64 `[B, count]`, that `ahead` has made, under their whole names.
    """

    seed: int
    epoch: int
    samples: Tensor
    scope: str = ""
    made: Mapping[str, Tensor] = field(default_factory=dict, repr=False, compare=False)

    def within(self, scope: str) -> Draws:
        """The same draws under longer names: two views, two layers, two blocks never share a number."""
        return replace(self, scope=f"{self.scope}{scope}/")

    def ahead(self, counts: Mapping[str, int]) -> Draws:
        """The same draws, with so many words of each of these names made at once, at hardly more than the cost of one name.

        Whatever else is asked for is made when it is asked for.
        """
        names = [self.scope + name for name in counts]
        words = self._make(names, list(counts.values()))
        return replace(self, made={**self.made, **dict(zip(names, words, strict=True))})

    def words(self, name: str, count: int) -> Tensor:
        """int64 `[B, count]`, uniform over `[0, 2**32)`."""
        name = self.scope + name
        made = self.made.get(name)
        if made is None or made.shape[1] < count:
            if torch.compiler.is_compiling():
                return _words_compiled(self.samples, str(self.seed), self.epoch, name, count)
            (made,) = self._make([name], [count])
        return made[:, :count]

    def _make(self, names: list[str], counts: list[int]) -> list[Tensor]:
        """The words `[B, count]` of each name, in one go: one key for each name, one counter for each four words."""
        blocks = [-(-count // 4) for count in counts]
        place = torch.cat([torch.arange(each) for each in blocks])  # of each block among its name's
        keys = torch.tensor([key_of(self.seed, name) for name in names]).repeat_interleave(torch.tensor(blocks), dim=0)
        device = self.samples.device
        counter = torch.empty(4, len(self.samples), len(place), dtype=torch.int64, device=device)
        counter[0] = place.to(device, non_blocking=True)
        counter[1] = (self.samples & _MASK)[:, None]
        counter[2] = ((self.samples >> 32) & _MASK)[:, None]
        counter[3] = self.epoch
        words = philox(counter, keys.T[:, None].to(device, non_blocking=True)).permute(1, 2, 0).flatten(1)
        parts = words.split([4 * each for each in blocks], dim=1)
        return [part[:, :count] for part, count in zip(parts, counts, strict=True)]

    def uniform(self, name: str, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """float32 `[B, *shape]` in `[low, high)`, on a grid of 2**-24."""
        unit = (self.words(name, math.prod(shape)) >> 8).to(torch.float32) * 2.0**-24
        if (low, high) != (0.0, 1.0):
            unit = low + (high - low) * unit
        return unit.reshape(-1, *shape)

    def chance(self, name: str, probability: float, *shape: int) -> Tensor:
        """Bool `[B, *shape]`, true with `probability` (0 and 1 are exact)."""
        return self.uniform(name, *shape) < probability

    def integers(self, name: str, low: int, high: int, *shape: int) -> Tensor:
        """int64 `[B, *shape]` in `[low, high)`; the bias of the modulus is below `(high - low) / 2**32`."""
        return (low + self.words(name, math.prod(shape)) % (high - low)).reshape(-1, *shape)

    def normal(self, name: str, *shape: int) -> Tensor:
        """float32 `[B, *shape]`, mean 0 and variance 1 (Box and Muller)."""
        count = math.prod(shape)
        pairs = self.words(name, 2 * count).reshape(len(self.samples), count, 2)
        # (0, 1] for the logarithm: 2**-32 at the least, so no value is infinite.
        radius = (-2.0 * ((pairs[..., 0].to(torch.float64) + 1.0) * 2.0**-32).log()).sqrt()
        angle = (2.0 * math.pi * 2.0**-32) * pairs[..., 1].to(torch.float64)
        return (radius * angle.cos()).to(torch.float32).reshape(-1, *shape)

    def permutation(self, name: str, length: int) -> Tensor:
        """int64 `[B, length]`: an order of its own for every sample."""
        return self.words(name, length).argsort(dim=1, stable=True)


@torch.library.custom_op(
    "tacit::words", mutates_args=(), schema="(Tensor samples, str seed, SymInt epoch, str name, SymInt count) -> Tensor"
)
def _words_compiled(samples: Tensor, seed: str, epoch: int, name: str, count: int) -> Tensor:
    """A name's words as one operation of a compiled graph: a compiler cannot look into a hash, and would break the graph."""
    return Draws(int(seed), epoch, samples).words(name, count).contiguous()


@_words_compiled.register_fake
def _(samples: Tensor, seed: str, epoch: int, name: str, count: int) -> Tensor:
    return samples.new_empty(len(samples), count)


@dataclass(frozen=True)
class Order:
    """The order of one epoch: a permutation of `range(length)` that is computed, never stored.

    A Feistel network over the smallest even number of bits that holds `length`, walked until it lands inside (Black and
    Rogaway, "Ciphers with arbitrary finite domains", 2002). Any position costs the same, so step 10**7 starts at once.
    """

    seed: int
    epoch: int
    length: int
    name: str = "order"

    def __call__(self, positions: Tensor) -> Tensor:
        """The rows at these positions: int64 `[N]` in, int64 `[N]` out, both in `[0, length)`."""
        half = max(1, (max(self.length - 1, 1).bit_length() + 1) // 2)
        rows = self._encrypt(positions, half)
        while len(outside := (rows >= self.length).nonzero()[:, 0]):
            rows[outside] = self._encrypt(rows[outside], half)
        return rows

    def _encrypt(self, value: Tensor, half: int) -> Tensor:
        mask = (1 << half) - 1
        key = torch.tensor(key_of(self.seed, self.name), device=value.device)[:, None]
        left, right = value >> half, value & mask
        for turn in range(4):
            counter = torch.stack(
                [right, torch.full_like(right, turn), torch.zeros_like(right), torch.full_like(right, self.epoch)]
            )
            mixed = philox(counter, key)[0] & mask
            left, right = right, left ^ mixed
        return (left << half) | right
