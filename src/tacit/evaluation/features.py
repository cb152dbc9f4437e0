"""Features of a labelled collection: how they are taken, and how they are divided into train and test."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from tacit.core.draws import Draws
from tacit.core.errors import TacitError
from tacit.data.spec import Batch

Encode = Callable[[Batch], Tensor]
"""All that a protocol knows of an encoder: a batch of B samples in, float `[B, D]` out."""

TEST_SHARE = 0.3
"""The share of samples that is tested on where a collection brings no split of its own."""


@dataclass(frozen=True)
class Features:
    """What an encoder says about some samples.

    Attributes:
        ids: int64 `[N]`, rows of the index, on the CPU.
        values: float32 `[N, D]`, on the device that they were computed on.
    """

    ids: Tensor
    values: Tensor


@torch.no_grad()
def extract(encode: Encode, batches: Iterable[Batch]) -> Features:
    """The features of every sample of `batches`, in their order, on the device of what `encode` returns (MPS: on the CPU)."""
    ids, values = [], []
    for batch in batches:
        ids.append(batch.ids.cpu())
        values.append(features_of(encode, batch))
    if not ids:
        raise TacitError("there are no samples to take features of; give a collection with at least one readable sample")
    found = torch.cat(values)
    # Figures are summed in float64, which Apple's GPUs do not have.
    return Features(torch.cat(ids), found.cpu() if found.device.type == "mps" else found)


def features_of(encode: Encode, batch: Batch) -> Tensor:
    """float32 `[B, D]`; where samples come in several parts, such as the clips of a film, the mean over these."""
    looks = [encode(look).detach().float() for look in batch.parts.values() or [batch]]
    return torch.stack(looks).mean(dim=0) if len(looks) > 1 else looks[0]


@dataclass(frozen=True)
class Labelled:
    """Features with their classes, divided into what may be learned from and what is reported on.

    Attributes:
        train_x, test_x: float32 `[N, D]` and `[M, D]`, on one device.
        train_y, test_y: int64 `[N]` and `[M]` on that device, places in `classes`.
        classes: the classes' names.
        train_groups: int64 `[N]`, what must not be divided again (a patient, a video), or None.
        components: how many principal components `standardised` keeps; None keeps the features as they are.
    """

    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor
    classes: tuple[str, ...]
    train_groups: Tensor | None = None
    components: int | None = None

    def centred(self) -> Labelled:
        """The same without the mean of the training features."""
        mean = self.train_x.mean(dim=0)
        return replace(self, train_x=self.train_x - mean, test_x=self.test_x - mean)

    @cached_property
    def standardised(self) -> Labelled:
        """What linear classifiers see: the same with mean 0 and deviation 1 over the training features.

        Dimensions that never change become 0. With `components`, the result is turned onto its principal axes.
        """
        mean, deviation = self.train_x.mean(dim=0), self.train_x.std(dim=0, correction=0)
        # Rounding alone makes a constant dimension spread by about 1e-7 of its value: that is no signal to blow up.
        scale = torch.where(deviation > 1e-6 * mean.abs(), 1 / deviation, torch.zeros_like(deviation))
        train_x, test_x = (self.train_x - mean) * scale, (self.test_x - mean) * scale
        if self.components is not None and self.components < train_x.shape[1]:
            if len(train_x) < train_x.shape[1]:  # the axes of D x D products would be dear, as for films of raw input
                axes = torch.linalg.svd(train_x, full_matrices=False).Vh[: self.components].T
            else:
                axes = torch.linalg.eigh(train_x.T @ train_x).eigenvectors[:, -self.components :]
            train_x, test_x = train_x @ axes, test_x @ axes
        return replace(self, train_x=train_x, test_x=test_x)


@dataclass(frozen=True)
class Split:
    """Which samples of a collection are trained and tested on, and what their classes are.

    Attributes:
        train, test: int64 `[N]` and `[M]`, rows of the index, ascending.
        train_y, test_y: int64 `[N]` and `[M]`, places in `classes`.
        classes: names of the classes: numbers in the order of their value, words in the order of the alphabet; none where
            nothing has a label.
        said: how the split came about, in words, for the record.
        train_groups: int64 `[N]` or None.
    """

    train: Tensor
    test: Tensor
    train_y: Tensor
    test_y: Tensor
    classes: tuple[str, ...]
    said: str
    train_groups: Tensor | None = None

    @property
    def ids(self) -> Tensor:
        """int64 `[N + M]`, all rows whose features are needed."""
        return torch.cat([self.train, self.test])

    def available(self, ids: Tensor) -> Split:
        """The split without the samples that are not among `ids`, because they could not be read."""
        train, test = torch.isin(self.train, ids), torch.isin(self.test, ids)
        missing = int((~train).sum() + (~test).sum())
        if not missing:
            return self
        if not test.any() or (len(train) and not train.any()):
            raise TacitError(f"of {len(self.ids)} samples to evaluate on {missing} cannot be read; `tacit doctor` lists them")
        groups = None if self.train_groups is None else self.train_groups[train]
        return replace(
            self,
            train=self.train[train],
            test=self.test[test],
            train_y=self.train_y[train],
            test_y=self.test_y[test],
            said=f"{self.said}; {missing} of {len(self.ids)} samples cannot be read",
            train_groups=groups,
        )

    def labelled(self, features: Features) -> Labelled:
        """The features (of at least `ids`, in any order) with their classes."""
        device = features.values.device
        order = features.ids.argsort()
        known = features.ids[order]

        def values(ids: Tensor) -> Tensor:
            return features.values[order[torch.searchsorted(known, ids)].to(device)]

        return Labelled(
            values(self.train),
            self.train_y.to(device),
            values(self.test),
            self.test_y.to(device),
            self.classes,
            None if self.train_groups is None else self.train_groups.to(device),
        )


def split_labelled(
    labels: Sequence[str | int | None] | None,
    splits: Sequence[str | None] | None = None,
    groups: Sequence[str | int | None] | None = None,
    seed: int = 0,
) -> Split:
    """Divide a labelled collection, row by row of its index.

    A split of the collection's own is kept as it is: `test` (else `val`) is tested on, `train` is trained on. Otherwise 30 %
    of every class are drawn for the test, whole groups together.

    Args:
        labels: what each row shows; rows without a label (None or an empty string) are left out.
        splits: what each row's split is called, in any case, where that is known.
        groups: what each row belongs to, where that is known; a row without a group stands alone.
        seed: what the division is drawn from.

    Raises:
        TacitError: no labels, one class, next to as many classes as samples, or nothing left for one of the two sides.
    """
    rows = [] if labels is None else [row for row, label in enumerate(labels) if label is not None and label != ""]
    if labels is None or not rows:
        raise TacitError(
            "evaluation needs labels and there are none; give a folder of class folders, or a manifest with a label column"
        )
    names = [str(labels[row]) for row in rows]
    classes = _classes(set(names), len(rows))
    place = {name: index for index, name in enumerate(classes)}
    y = torch.tensor([place[name] for name in names])
    ids = torch.tensor(rows)
    group = None if groups is None else group_numbers([groups[row] for row in rows])

    given = None if splits is None else given_split([(splits[row] or "").lower() for row in rows])
    if given is not None:
        train, test, said = given
    else:
        test = held_out(y, TEST_SHARE, Draws(seed, 0, ids).within("split"), group)
        if not test.any():
            unit = "sample" if group is None else "group"
            raise TacitError(f"every class has one {unit}, so none can be kept for a test; label more, or give a test split")
        train, said = ~test, f"drawn {1 - TEST_SHARE:.0%} / {TEST_SHARE:.0%} by class, seed {seed}"
        if group is not None:
            said += ", groups kept together"
    if len(rows) < len(labels):
        said += f"; {len(labels) - len(rows)} of {len(labels)} samples have no label"
    return Split(ids[train], ids[test], y[train], y[test], classes, said, None if group is None else group[train])


def split_unlabelled(count: int, splits: Sequence[str | None] | None = None) -> Split:
    """A collection without classes: nothing is learned from it, so all of it is tested on, or its own `test` (else `val`)."""
    for name, mask in {} if splits is None else _by_name([(split or "").lower() for split in splits]).items():
        if name != "train" and mask.any():
            rows, said = mask.nonzero()[:, 0], f"given {name}"
            break
    else:
        rows, said = torch.arange(count), "all samples"
    nothing = rows[:0]
    return Split(nothing, rows, nothing, torch.zeros_like(rows), (), said)


def held_out(y: Tensor, share: float, draws: Draws, groups: Tensor | None = None) -> Tensor:
    """Which samples are set aside: bool `[N]`, about `share` of every class, at least one of each class with two or more.

    With groups, whole groups are set aside, in drawn order, as long as each brings the counts nearer to `share` of every class.

    Args:
        y: int64 `[N]`, classes.
        share: in `(0, 1)`.
        draws: with N samples; which of them are taken depends on these names alone, not on their order.
        groups: int64 `[N]`, or None where every sample stands alone.

    Returns:
        False everywhere if no class has two samples, or two groups, to set one of them aside.
    """
    rank = draws.words("held out", 1)[:, 0]
    taken = torch.zeros(len(y), dtype=torch.bool, device=y.device)
    if groups is None:
        for one in y.unique():
            members = (y == one).nonzero()[:, 0]
            count = min(max(round(share * len(members)), 1), len(members) - 1)
            taken[members[rank[members].argsort(stable=True)[:count]]] = True
    else:
        wanting = share * torch.bincount(y).double()
        # A group is drawn by its first-drawn sample.
        first = torch.full((int(groups.max()) + 1,), 2**32, device=y.device).scatter_reduce(0, groups, rank, "amin")
        for group in first.argsort(stable=True)[: len(groups.unique())]:
            members = groups == group
            counts = torch.bincount(y[members], minlength=len(wanting)).double()
            if (wanting - counts).abs().sum() < wanting.abs().sum():
                wanting, taken = wanting - counts, taken | members
    return taken


def _classes(names: set[str], samples: int) -> tuple[str, ...]:
    if len(names) < 2:
        raise TacitError(f"all {samples} labelled samples are of the class '{next(iter(names))}'; evaluation needs two or more")
    if 2 * len(names) > samples:
        raise TacitError(
            f"{len(names)} different labels on {samples} samples: these are no classes; choose another label column"
        )
    try:
        return tuple(sorted(names, key=float))
    except ValueError:
        return tuple(sorted(names))


def group_numbers(groups: Sequence[str | int | None]) -> Tensor:
    numbers: dict[object, int] = {}
    alone = (None, "")
    return torch.tensor(
        [numbers.setdefault((row,) if group in alone else group, len(numbers)) for row, group in enumerate(groups)]
    )


def given_split(splits: list[str]) -> tuple[Tensor, Tensor, str] | None:
    """The collection's own split, if it has both sides."""
    mask = _by_name(splits)
    for test in ("test", "val"):
        if mask["train"].any() and mask[test].any():
            return mask["train"], mask[test], f"given train / {test}"
    return None


def _by_name(splits: list[str]) -> dict[str, Tensor]:
    """Which rows, bool `[N]`, are in the split of each usual name."""
    named = {"train": {"train", "training"}, "test": {"test", "testing"}, "val": {"val", "valid", "validation", "dev"}}
    return {name: torch.tensor([split in words for split in splits]) for name, words in named.items()}
