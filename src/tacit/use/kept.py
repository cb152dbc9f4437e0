"""Arrays that are kept in a run's folder, and made again where they are not there or damaged."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from tacit.core import archives, files


def keep(path: Path, **arrays: np.ndarray) -> None:
    """Write arrays by name, all of them or none."""
    content = io.BytesIO()
    np.savez(content, **arrays)  # pyright: ignore[reportArgumentType]
    files.write_bytes(path, content.getvalue())


def kept(path: Path, *names: str) -> tuple[np.ndarray, ...] | None:
    """The arrays of these names; None where the file is not there, or cannot be read whole."""
    try:
        archives.refuse_damaged(path)
        with np.load(path, allow_pickle=False) as found:
            return tuple(found[name] for name in names)
    except Exception:  # a damaged file makes a parser fail in any way
        return None
