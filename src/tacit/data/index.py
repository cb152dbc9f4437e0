"""The table of all samples: paths, sizes, times, and what the owner wrote down about them."""

# pyright: reportAttributeAccessIssue=false
# (PyArrow makes its compute functions when it is imported.)
from __future__ import annotations

import hashlib
import posixpath
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

AT_ONCE = 1 << 16
"""So many rows are looked at at a time: all names of a large table do not fit into one array."""


@dataclass(frozen=True)
class Index:
    """One row per sample.

    Attributes:
        table: columns `path`, and as far as they are known `size`, `mtime`, `split`, `label`, `group`; further columns are
            the owner's own and are kept.
        root: what the paths are relative to; empty where they are whole.
    """

    table: pa.Table
    root: str = ""

    def __len__(self) -> int:
        return self.table.num_rows

    def path(self, row: int) -> str:
        """The path of one sample, with the root in front."""
        path = self.table["path"][row].as_py()
        return path if not self.root or "://" in path or path.startswith("/") else f"{self.root.rstrip('/')}/{path}"

    @cached_property
    def paths(self) -> list[str]:
        return [self.path(row) for row in range(len(self))]

    @cached_property
    def names(self) -> list[str]:
        """The paths without what they tell of this machine: below the folder that they share, where all of them are whole."""
        paths = [path or "" for path in self.table["path"].to_pylist()]
        whole = [path.startswith("/") or "://" in path for path in paths]
        if not any(whole):
            return paths
        if not all(whole):
            return [posixpath.basename(path) if full else path for path, full in zip(paths, whole, strict=True)]
        shared = len(posixpath.commonprefix([posixpath.dirname(path).split("/") for path in paths]))
        return ["/".join(path.split("/")[shared:]) for path in paths]

    def strings(self, column: str) -> np.ndarray | None:
        """A column as NumPy strings (objects); None where there is no such column. A missing value is the empty string."""
        if column not in self.table.column_names:
            return None
        return np.asarray(pc.fill_null(self.table[column].cast(pa.string()), "").to_numpy(zero_copy_only=False), dtype=object)

    @cached_property
    def splits(self) -> dict[str, int]:
        """The splits there are, and how many samples each has, in the order train, val, test, others."""
        values = self.strings("split")
        if values is None:
            return {}
        names, counts = np.unique(values.astype(str), return_counts=True)
        first = ["train", "val", "test"]
        ordered = sorted(
            zip(names.tolist(), counts.tolist(), strict=True), key=lambda s: (s[0] not in first, s[0] == "test", s[0])
        )
        return {name: count for name, count in ordered if name}

    def take(self, rows: np.ndarray) -> Index:
        return Index(self.table.take(pa.array(rows)), self.root)

    @cached_property
    def fingerprint(self) -> str:
        """Paths, sizes, times and captions in one hexadecimal number: other data, other number, wherever the root lies."""
        digest = hashlib.blake2b(digest_size=16)
        for name in ("path", "offset", "size", "mtime", "content", "caption"):
            if name in self.table.column_names:
                column = self.table[name]
                digest.update(name.encode())
                for start in range(0, len(column), AT_ONCE):
                    part = column.slice(start, AT_ONCE)
                    if pa.types.is_integer(column.type):
                        digest.update(pc.fill_null(part, -1).to_numpy().astype("<i8").tobytes())
                    elif pa.types.is_nested(column.type):
                        digest.update(repr(part.to_pylist()).encode(errors="surrogatepass"))
                    else:
                        digest.update(b"\0" * bool(start) + _joined(part))
        return digest.hexdigest()


def _joined(names: pa.ChunkedArray) -> bytes:
    """Names with a zero between them; without a Python string for each, which would take several times as long."""
    values = names.cast(pa.string()).fill_null("").combine_chunks()
    one = pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)
    return pc.binary_join(one, "\0")[0].as_buffer().to_pybytes()


def sound(table: pa.Table) -> pa.Table:
    """The table, after a look at every offset and every name; a `ValueError` where Arrow was handed nonsense.

    Arrow trusts files in its own format unless it is asked not to, and damaged ones end the process.
    """
    table.validate(full=True)
    for name in table.column_names:  # Made from bytes only here.
        name.encode()
    return table


def spread(length: int, most: int) -> np.ndarray:
    """At most `most` row numbers, evenly spread over `range(length)`."""
    return (
        np.unique(np.linspace(0, length - 1, min(length, most)).round().astype(np.int64)) if length else np.zeros(0, np.int64)
    )
