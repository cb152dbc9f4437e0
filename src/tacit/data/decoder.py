"""Decoding, with an eye on whether the data is still there."""

from __future__ import annotations

from collections import deque

import numpy as np

from tacit.core.errors import Hindered
from tacit.data.collection import Collection
from tacit.data.payload import Unreadable
from tacit.data.window import Part

WITNESSES = 8


class Decoder:
    """Decodes the samples of a collection, and tells a broken sample from data that is gone.

    When a disk is unmounted in the middle of a run, every sample seems broken. So after each failure the last few samples
    that could be read are read again: if none of them can be any more, it is not the sample. Several threads may share one.
    """

    def __init__(self, collection: Collection) -> None:
        self.collection = collection
        self._seen: deque[int] = deque(maxlen=WITNESSES)

    def __call__(self, row: int, side: int | None, part: Part | None = None) -> np.ndarray:
        """`[*extent, C]`, as `Collection.decode` gives it. Raises `Unreadable`, or `Hindered` where the data is gone."""
        try:
            sample = self.collection.decode(row, side, part)
        except Unreadable:
            self._refuse_gone()
            raise
        self._seen.append(row)
        return sample

    def _refuse_gone(self) -> None:
        why, seen = None, list(self._seen)
        for row in seen:
            try:
                self.collection.read(row)
            except Unreadable as problem:
                why = problem
            else:
                return
        if why is not None:
            path = self.collection.index.path(seen[-1])
            raise Hindered(f"the data is gone: {path} could be read before and no longer can ({why}); bring it back")
