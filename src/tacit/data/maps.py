"""Maps of every sample, half precise, in one file: what a frozen network says of each, made once and read by row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np

from tacit.core import files
from tacit.core.errors import TacitError

DTYPE = np.dtype("<f2")


class Maps:
    """Maps of differing sizes, mapped into memory.

    `NAME.f16` holds them back to back, in the order of the rows; `NAME.npy`, written last, their shapes.

    Attributes:
        shapes: int64 `[N, M, A]`, of the M maps of each of N samples, A axes each; 0 for samples that have none.
    """

    def __init__(self, path: Path, shapes: np.ndarray) -> None:
        self.path, self.shapes = path, shapes
        ends = shapes.prod(axis=2).cumsum()
        self._starts = np.concatenate([[0], ends]).reshape(-1)[:-1].reshape(shapes.shape[:2])

    @classmethod
    def made(cls, path: Path, said: Iterable[tuple[int, Sequence[np.ndarray]]]) -> Maps:
        """Those that lie at `path`; where none do, or not all of them, those that are said now.

        Args:
            path: without an ending.
            said: rows, in ascending order, and their maps; rows that are not said have none. Nothing is read of it where
                the maps are there.
        """
        if (kept := cls._kept(path)) is not None:
            return kept
        shapes: dict[int, list[tuple[int, ...]]] = {}
        with files.replacing(path.with_suffix(".f16")) as file:
            for row, maps in said:
                shapes[row] = [each.shape for each in maps]
                for each in maps:
                    file.write(np.ascontiguousarray(each, dtype=DTYPE).tobytes())
        if not shapes:
            raise TacitError("no sample can be read, so that nothing can be said of any")
        first = next(iter(shapes.values()))
        table = np.zeros((max(shapes) + 1, len(first), len(first[0])), dtype=np.int64)
        for row, each in shapes.items():
            table[row] = each
        content = BytesIO()
        np.save(content, table)
        files.write_bytes(path.with_suffix(".npy"), content.getvalue())
        return cls(path, table)

    @classmethod
    def _kept(cls, path: Path) -> Maps | None:
        try:
            with files.opened(path.with_suffix(".npy")) as file:
                shapes = np.load(file, allow_pickle=False)
            size = path.with_suffix(".f16").stat().st_size
        except (OSError, ValueError, EOFError):
            return None
        whole = shapes.ndim == 3 and shapes.dtype == np.int64 and (shapes >= 0).all()
        return cls(path, shapes) if whole and shapes.prod(axis=2).sum() * DTYPE.itemsize == size else None

    def __contains__(self, row: int) -> bool:
        return row < len(self.shapes) and bool(self.shapes[row].all())

    def __getitem__(self, row: int) -> list[np.ndarray]:
        """The maps of a row, views into the file."""
        return [
            np.memmap(self.path.with_suffix(".f16"), DTYPE, "r", int(start) * DTYPE.itemsize, tuple(shape.tolist()))
            for start, shape in zip(self._starts[row], self.shapes[row], strict=True)
        ]
