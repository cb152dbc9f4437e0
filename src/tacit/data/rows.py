"""Row numbers that are computed, not stored: a list of a billion of them would take eight gigabytes in every process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


class Rows:
    """The numbers below `count` in order, but for a few.

    Args:
        count: how many there would be.
        without: those that are left out.
    """

    def __init__(self, count: int, without: Sequence[int] | np.ndarray = ()) -> None:
        gaps = np.unique(np.asarray(without, dtype=np.int64))
        self._length = count - len(gaps)
        self._before = gaps - np.arange(len(gaps))
        """How many of the numbers come before each gap."""

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, places: Any) -> Any:
        """The numbers at these places, in `[0, len)`: int64, as many."""
        return places + np.searchsorted(self._before, places, side="right")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[np.arange(self._length)].astype(dtype or np.int64, copy=False)
