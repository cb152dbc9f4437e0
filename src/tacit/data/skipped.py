"""Bad samples: how many are too many, and the list of them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np

from tacit.core import files
from tacit.core.errors import TacitError, plain
from tacit.data.collection import Collection
from tacit.data.index import spread
from tacit.data.payload import Unreadable
from tacit.data.workers import in_order, pool

MAX_BAD = 0.05
"""A larger share of bad samples stops a run before it trains on what is left."""


def refuse_too_many(bad: Mapping[int, str], looked_at: int, collection: Collection, max_bad: float = MAX_BAD) -> None:
    """A `TacitError` where more than `max_bad` of the samples looked at are bad."""
    if len(bad) <= max_bad * looked_at:
        return
    row = min(bad)
    first = f"the first is {collection.index.path(row)} ({bad[row]})"
    raise TacitError(
        f"{len(bad)} of {looked_at} samples cannot be used, more than the allowed {max_bad:.1%}; {first};"
        " mend or remove them (`tacit doctor` lists them) or allow more with --max-bad"
    )


def screen(
    collection: Collection, rows: Sequence[int] | np.ndarray | None = None, max_bad: float = MAX_BAD, sample: int = 1000
) -> dict[int, str]:
    """The bad ones among `sample` evenly spread rows, with their reasons: the look before training without a store.

    Raises `TacitError` where they are more than `max_bad` of those looked at.
    """
    among = np.arange(len(collection)) if rows is None else np.asarray(rows, dtype=np.int64)
    chosen = among[spread(len(among), sample)].tolist()

    def look(row: int) -> str | None:
        try:
            collection.decode(row, 64)
        except Unreadable as problem:
            return str(problem)
        return None

    with pool() as workers:
        found = list(in_order(workers, look, chosen))
    bad = {row: why for row, why in zip(chosen, found, strict=True) if why is not None}
    refuse_too_many(bad, len(chosen), collection, max_bad)
    return bad


def write_skipped(path: str | os.PathLike[str], collection: Collection, bad: Mapping[int, str]) -> None:
    """`skipped.tsv`: a line with path and reason for each bad sample, in the order of the index."""
    lines = ["path\treason", *(f"{plain(collection.index.path(row))}\t{plain(bad[row])}" for row in sorted(bad))]
    files.write_text(path, "\n".join(lines) + "\n")
