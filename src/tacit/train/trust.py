"""Code in a run: an encoder may be a class in somebody's Python file, and opening the run executes that file.

Who types `--encoder file.py:Class` wants it executed, and its content is remembered on this machine. A run folder that comes
from elsewhere names code that nobody here has named: it is refused until somebody does.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from tacit.core import files
from tacit.core.errors import TacitError
from tacit.data.cache import cache_folder


def names_code(encoder: str) -> bool:
    """Whether an encoder's name leads to a Python file."""
    return ".py:" in encoder and not encoder.startswith("timm:")


def remember(encoder: str) -> None:
    """The user named this encoder: its file, as it is now, may be executed from now on."""
    if names_code(encoder) and (path := _file(encoder)).is_file():
        files.write_text(_mark(path), f"{path}\n")


def require(encoder: str, run: str | os.PathLike[str]) -> None:
    """A `TacitError` where a run would execute code that nobody on this machine has named."""
    if not names_code(encoder) or os.environ.get("TACIT_TRUST_CODE") == "1":
        return
    path = _file(encoder)
    if path.is_file() and not _mark(path).is_file():
        raise TacitError(
            f"{run} would execute {path}, which was not named on this machine, or has changed since; "
            "read it, then set TACIT_TRUST_CODE=1 for this command"
        )


def _file(encoder: str) -> Path:
    return Path(encoder.rpartition(":")[0])


def _mark(path: Path) -> Path:
    return cache_folder() / "trusted" / hashlib.sha256(path.read_bytes()).hexdigest()
