"""The contract of a source: a table with one row per sample, and a way to read a row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from tacit.data.kinds.kind import Kind
from tacit.data.payload import Limits, Payload

Read = Callable[[int, Limits], Payload]
"""From a row of the source's table to the sample as it lies there; raises `Unreadable`, and nothing else."""


@dataclass(frozen=True)
class Source:
    """Where samples come from.

    Attributes:
        table: one row per sample: `path` (string), and as far as they are known `size` (bytes), `mtime` (nanoseconds),
            `split`, `label`, `group` (strings) and whatever else the owner wrote down.
        read: reads a row of that table.
        root: what the paths are relative to; empty where they are whole.
        what: how the input was understood, for a person: "a folder of 10 class folders".
        kind: the kind of data, where the source had to settle it to make the table.
        why: what spoke for that kind.
        late_labels: reads the labels of some rows, where that is too dear to do before anybody asks.
        read_mask: reads the labels of a row's places (points, pixels, voxels), where the table has a column `mask`.
    """

    table: pa.Table
    read: Read
    root: str
    what: str
    kind: Kind | None = None
    why: str = ""
    late_labels: Callable[[np.ndarray], list[str]] | None = None
    read_mask: Read | None = None
