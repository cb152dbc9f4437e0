"""A labelled collection, ready to be evaluated on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from tacit.data.collection import Collection
from tacit.data.loader import Loader, shared, whole_or
from tacit.data.skipped import MAX_BAD
from tacit.data.spec import Batch, Spec
from tacit.data.store import Store
from tacit.data.window import Window
from tacit.evaluation.features import Split, split_labelled, split_unlabelled

BATCH = 256
"""Samples that are encoded at a time, where nobody says otherwise."""


@dataclass(frozen=True)
class Task:
    """Samples, their classes, and which of them are trained and tested on.

    Attributes:
        name: what records call the data.
        collection: the samples, with the channels that the encoder knows.
        spec: what the encoder takes samples to look like; that of its run.
        split: train, test and classes.
        store: the samples decoded once, where that was done.
        side: what samples are decoded at where there is no store.
        window: which part of samples the encoder's views are made of; None for all of them.
        windows: the parts of samples that features are the mean over, by name; with none, they are of `window`.
        max_bad: a larger share of unreadable samples is an error.
    """

    name: str
    collection: Collection
    spec: Spec
    split: Split
    store: Store | None = None
    side: int | None = None
    max_bad: float = MAX_BAD
    window: Window | None = None
    windows: Mapping[str, Window] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        name: str,
        collection: Collection,
        spec: Spec,
        store: Store | None = None,
        side: int | None = None,
        seed: int = 0,
        max_bad: float = MAX_BAD,
        window: Window | None = None,
        windows: Mapping[str, Window] | None = None,
        unlabelled: bool = False,
    ) -> Task:
        """A task by the collection's own labels, splits and groups. See `split_labelled`.

        With `unlabelled`, a collection without labels is no error, but a task without classes. See `split_unlabelled`.
        """

        def column(name: str) -> list[str] | None:
            values = collection.index.strings(name)
            return None if values is None else values.tolist()

        labels = collection.labels
        if unlabelled and (labels is None or not any(labels.tolist())):
            split = split_unlabelled(len(collection), column("split"))
        else:
            split = split_labelled(None if labels is None else labels.tolist(), column("split"), column("group"), seed)
        return cls(name, collection, spec, split, store, side, max_bad, window, windows or {})

    def batches(self, ids: Tensor) -> Iterable[Batch]:
        """These samples once, in this order, without those that cannot be read."""
        return self._loader(ids, BATCH, 0, shuffle=False)

    def shown(self, ids: Tensor) -> Iterable[Batch]:
        """The same as features are taken of them: in their parts, where there are `windows`."""
        return self._loader(ids, shared(BATCH, self.windows), 0, shuffle=False, windows=self.windows)

    def training(self, batch_size: int, seed: int) -> Loader:
        """The training samples, shuffled anew each epoch; a smaller batch where there are fewer samples."""
        return self._loader(self.split.train, min(batch_size, len(self.split.train)), seed, shuffle=True)

    def _loader(
        self, ids: Tensor, batch_size: int, seed: int, shuffle: bool, windows: Mapping[str, Window] | None = None
    ) -> Loader:
        rows: np.ndarray = ids.numpy()
        return Loader(
            self.collection, self.store, rows, batch_size, seed, shuffle=shuffle, side=self.side, max_bad=self.max_bad,
            windows=windows or whole_or(self.window),
        )  # fmt: skip
