"""Files that somebody listed: one a line in a text file, or a list in Python."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from tacit.core.errors import TacitError
from tacit.data.kinds.formats.zarr_words import pictures
from tacit.data.payload import Unreadable
from tacit.data.sources.folder import escaped, facts_there, read_files
from tacit.data.sources.place import Place
from tacit.data.sources.source import Source

LIST_BYTES = 2 << 30
"""A larger file is no list of files, nor a table of them."""


def open_list(paths: Sequence[str | os.PathLike[str]]) -> Source:
    """Paths or URLs, relative to the working directory."""
    table = files_table(Place(""), [os.path.expanduser(os.fspath(p)) for p in paths])
    return Source(table, read_files(Place.of, table), "", f"a list of {len(paths)} paths")


def open_store(place: Place) -> Source:
    """A folder of this machine that is one sample, or a plate of many."""
    several = pictures(Path(place.path))
    source = open_list([str(place / each) for each in several] or [str(place)])
    return replace(source, what=f"a plate of {len(several)} pictures") if several else source


def open_text(place: Place) -> Source:
    """A text file with one path a line, relative to the file."""
    try:
        lines = place.read(LIST_BYTES).decode("utf-8", "surrogateescape").splitlines()
    except Unreadable as problem:
        raise TacitError(f"cannot read {place}: {problem}") from problem
    table = files_table(place.parent, [line.strip() for line in lines if line.strip()])
    return Source(table, read_files(place.parent.__truediv__, table), str(place.parent), f"the list of files {place.name}")


def files_table(root: Place, paths: Sequence[str]) -> pa.Table:
    """`path`, `size` and `mtime` of files; the latter two null for files that are not there or not local."""
    facts = [facts_there(root, path) for path in paths]
    return pa.table(
        {
            "path": pa.array([escaped(p) for p in paths], pa.string()),
            "size": pa.array([f and f[0] for f in facts], pa.int64()),
            "mtime": pa.array([f and f[1] for f in facts], pa.int64()),
        }
    )
