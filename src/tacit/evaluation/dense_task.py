"""A collection whose points, pixels or voxels have labels of their own, ready for the protocols that judge tokens by them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from tacit.core.draws import Draws
from tacit.core.errors import TacitError
from tacit.data.collection import Collection
from tacit.data.payload import Unreadable
from tacit.data.skipped import refuse_too_many
from tacit.data.spec import Batch
from tacit.evaluation.features import TEST_SHARE, Split, given_split, group_numbers, held_out
from tacit.evaluation.task import Task

VOID = 255
"""This label means nothing, unless the only other one is 0: then it is the white of a black and white picture."""


@dataclass(frozen=True)
class DenseTask:
    """Samples, the labels of their places, and which samples are trained and tested on.

    Attributes:
        task: the samples; its split has no classes.
        classes: the numbers that the masks have for the classes, ascending.
    """

    task: Task
    classes: tuple[int, ...]

    @classmethod
    def of(cls, task: Task) -> DenseTask:
        """Of the samples of a task, those that have a mask that can be read.

        Raises:
            TacitError: no masks, too many that cannot be read, fewer than two classes.
        """
        found: set[int] = set()
        bad: dict[int, str] = {}
        for row in task.split.ids.tolist():
            try:
                found.update(np.unique(_mask(task, row)).tolist())
            except Unreadable as problem:
                bad[row] = f"its mask: {problem}"
        refuse_too_many(bad, len(task.split.ids), task.collection, task.max_bad)
        kept = task.split.available(torch.tensor([row for row in task.split.ids.tolist() if row not in bad]))
        void = {VOID} if found - {0, VOID} else set()
        classes = tuple(sorted(label for label in found - void if label >= 0))
        if len(classes) < 2:
            said = f"the only label is {classes[0]}" if classes else "no place has a label"
            raise TacitError(f"the masks of '{task.name}' tell nothing apart: {said}; two or more classes are needed")
        return cls(replace(task, split=kept), classes)

    def batches(self, ids: Tensor) -> Iterator[tuple[Batch, list[Tensor]]]:
        """These samples, and of each the classes of its places, int64 `[P]`: places in `classes`, or -1 for none of them."""
        for batch in self.task.batches(ids):
            yield batch, [self._labels(row, size) for row, size in zip(batch.ids.tolist(), batch.sizes.tolist(), strict=True)]

    def _labels(self, row: int, size: Sequence[int]) -> Tensor:
        labels = _mask(self.task, row)
        if labels.shape != tuple(size):
            there, wanted = ("x".join(map(str, shape)) for shape in (labels.shape, size))
            raise TacitError(
                f"the mask of {self.task.collection.index.path(row)} has {there} places, the sample {wanted}; "
                "give masks of the samples' own sizes"
            )
        names = np.array(self.classes)
        place = np.searchsorted(names, labels).clip(max=len(names) - 1)
        return torch.from_numpy(np.where(names[place] == labels, place, -1).reshape(-1))


def masked(collection: Collection) -> bool:
    """Whether places of its samples have labels."""
    masks = collection.index.strings("mask")
    return collection.fetch_mask is not None and masks is not None and any(masks.tolist())


def split_masked(collection: Collection, seed: int = 0) -> Split:
    """Divide the samples that have a mask: by the collection's own split, else 30 % drawn for the test, groups together.

    Raises:
        TacitError: no sample has a mask, or nothing is left for one of the two sides.
    """
    masks, splits, groups = (collection.index.strings(name) for name in ("mask", "split", "group"))
    if masks is None or collection.fetch_mask is None:
        collection.mask(0)  # which says what is missing
        raise TacitError("this data has no labels of points, pixels or voxels")
    rows = [row for row, mask in enumerate(masks.tolist()) if mask]
    ids = torch.tensor(rows, dtype=torch.int64)
    nothing = torch.zeros_like(ids)
    group = None if groups is None or not rows else group_numbers([groups[row] for row in rows])
    given = None if splits is None else given_split([splits[row].lower() for row in rows])
    if given is not None:
        train, test, said = given
    else:
        test = held_out(nothing, TEST_SHARE, Draws(seed, 0, ids).within("split"), group)
        train, said = ~test, f"drawn {1 - TEST_SHARE:.0%} / {TEST_SHARE:.0%}, seed {seed}"
        said += "" if group is None else ", groups kept together"
    if not (train.any() and test.any()):
        raise TacitError(f"{len(rows)} sample(s) with a mask cannot be divided into train and test; give masks of more samples")
    if len(rows) < len(masks):
        said += f"; {len(masks) - len(rows)} of {len(masks)} samples have no mask"
    return Split(ids[train], ids[test], nothing[train], nothing[test], (), said, None if group is None else group[train])


def _mask(task: Task, row: int) -> np.ndarray:
    """Labels as they stand in the file, of the places that the encoder is shown."""
    window = task.window
    part = None if window is None else lambda extent: window(extent, [0.0] * window.drawn)
    return task.collection.mask(row, task.side, part)
