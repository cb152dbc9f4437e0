"""The files that features lie in: Parquet, NumPy, HDF5; how each is written, and how all are read again."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from tacit.core.errors import TacitError, said
from tacit.core.files import read_text
from tacit.data.collection import Collection
from tacit.data.index import sound
from tacit.data.payload import memory
from tacit.data.sources.manifest import parquet

OURS = ("id", "path", "embedding", "x", "y")
"""Columns that tacit writes; a column of the same name in the index gets an underscore behind it."""


@dataclass
class Rows:
    """What is written: columns by name (NumPy or Arrow, all of one length), and the features group by group.

    Attributes:
        columns: `id` and `path`, the index's own, `x` and `y` where there is a map.
        vectors: yields float32 `[n, D]`, group after group, n above 0, each time it is called.
        count: rows in all.
        width: D.
    """

    columns: dict[str, Any]
    vectors: Callable[[], Iterator[np.ndarray]]
    count: int
    width: int


@dataclass(frozen=True)
class Features:
    """What a file of features holds: ids int64 `[N]` (rows of the index), paths, vectors float32 `[N, D]`."""

    ids: np.ndarray
    paths: list[str]
    vectors: np.ndarray


def columns_of(collection: Collection, ids: np.ndarray, absolute: bool) -> dict[str, Any]:
    """The columns of some rows of a collection's index, `id` and `path` first."""
    table = collection.index.table.take(pa.array(ids)).combine_chunks()
    known = collection.paths if absolute else collection.index.names
    own = {name if name not in OURS else f"{name}_": table[name] for name in table.column_names if name != "path"}
    return {"id": ids, "path": pa.array([known[row] for row in ids.tolist()], pa.string()), **own}


def read(path: str | Path) -> Features:
    """Features from a file that `embed` wrote. Nothing in it is run."""
    path = Path(path)
    if path.suffix not in READERS:
        raise TacitError(f"{path} ends in '{path.suffix}'; features are read from {', '.join(READERS)}")
    if not path.is_file():
        raise TacitError(f"no such file: {path}; `tacit embed RUN DATA --out {path.name}` writes one")
    try:
        found = READERS[path.suffix](path)
        if found.vectors.ndim != 2 or not len(found.ids) == len(found.paths) == len(found.vectors):
            raise ValueError(f"{len(found.ids)} ids, {len(found.paths)} paths, vectors of shape {found.vectors.shape}")
        return found
    except Exception as problem:  # a damaged file makes a parser fail in any way
        raise TacitError(f"cannot read {path} as features ({said(problem)}); write it again with `tacit embed`") from problem


def _write_parquet(file: BinaryIO, rows: Rows, fingerprint: str) -> None:
    import pyarrow.parquet as pq

    columns = {
        name: column if isinstance(column, pa.ChunkedArray | pa.Array) else pa.array(column)
        for name, column in rows.columns.items()
    }
    fields = [pa.field(name, column.type) for name, column in columns.items()]
    kind = pa.list_(pa.float32(), rows.width)
    schema = pa.schema([*fields, pa.field("embedding", kind)], metadata={"tacit.encoder": fingerprint})
    start = 0
    # No two features are alike: a dictionary of them takes five times as long to write, and more room.
    with pq.ParquetWriter(file, schema, use_dictionary=list(columns)) as writer:  # pyright: ignore[reportArgumentType]
        for vectors in rows.vectors():
            embedding = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), rows.width)
            part = [column.slice(start, len(vectors)) for column in columns.values()]
            writer.write_table(pa.table([*part, embedding], schema=schema), row_group_size=len(vectors))
            start += len(vectors)


def _write_npy(file: BinaryIO, rows: Rows, fingerprint: str) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": (rows.count, rows.width)}
    np.lib.format.write_array_header_1_0(file, header)
    for vectors in rows.vectors():
        file.write(np.ascontiguousarray(vectors, "<f4").tobytes())


def _write_hdf5(file: BinaryIO, rows: Rows, fingerprint: str) -> None:
    import h5py

    # HDF5 reads while it writes, which an output stream does not allow: it gets a file of its own, copied in pieces.
    with tempfile.TemporaryFile() as scratch:
        with h5py.File(scratch, "w") as book:
            book.attrs["tacit.encoder"] = fingerprint
            book["id"] = rows.columns["id"]
            book.create_dataset("path", data=rows.columns["path"].to_pylist(), dtype=h5py.string_dtype())
            for name in ("x", "y"):
                if name in rows.columns:
                    book[name] = rows.columns[name]
            embedding = book.create_dataset("embedding", (rows.count, rows.width), np.float32)
            start = 0
            for vectors in rows.vectors():
                embedding[start : start + len(vectors)] = vectors
                start += len(vectors)
        scratch.seek(0)
        shutil.copyfileobj(scratch, file)


def _read_parquet(path: Path) -> Features:
    table = sound(parquet(str(path), ["id", "path", "embedding"])).combine_chunks()
    column = table["embedding"].combine_chunks()
    vectors = column.flatten().to_numpy().astype(np.float32, copy=False).reshape(len(table), -1)
    return Features(table["id"].to_numpy(), table["path"].to_pylist(), vectors)


def _read_npy(path: Path) -> Features:
    vectors = np.load(path, allow_pickle=False)
    _, *lines = read_text(path.with_name(path.name + ".ids.tsv")).rstrip("\n").split("\n")
    cells = [line.split("\t") for line in lines]
    if len(cells) != len(vectors):
        raise ValueError(f"{len(vectors)} vectors, but {len(cells)} rows in {path.name}.ids.tsv")
    paths = [path.encode("ascii").decode("unicode_escape") if "\\" in path else path for _, path, *_ in cells]
    return Features(np.array([int(row[0]) for row in cells], dtype=np.int64), paths, vectors)


def _read_hdf5(path: Path) -> Features:
    import h5py

    with h5py.File(path, "r") as book:
        columns: list[Any] = [book[name] for name in ("id", "path", "embedding")]
        for column in columns:
            # Other files may be named as places of the numbers, and a small file may unpack to any size.
            if column.file != book or column.is_virtual or column.external or column.nbytes > memory() // 4:
                raise ValueError(f"'{column.name}' lies in another file, or unpacks to {column.nbytes:,} bytes")
        return Features(columns[0][:], [text.decode() for text in columns[1][:]], columns[2][:])


WRITERS = {".parquet": _write_parquet, ".npy": _write_npy, ".h5": _write_hdf5, ".hdf5": _write_hdf5}
READERS = {".parquet": _read_parquet, ".npy": _read_npy, ".h5": _read_hdf5, ".hdf5": _read_hdf5}
