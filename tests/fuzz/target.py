"""What a target is: sound bytes, who reads them in use, and what may come of it."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tacit.core.errors import TacitError
from tacit.data.payload import Limits, Unreadable
from tests.fuzz import seeds

SMALL = Limits(pixels=1_000_000, file_bytes=1 << 20)
ROWS = 3
"""So many samples of a source are decoded."""


class Enough(TacitError):
    """Thrown where training would begin: what comes before is what is attacked."""


@dataclass(frozen=True)
class Target:
    """One format or artefact.

    Attributes:
        name: `group/format`.
        prepare: makes what lies around the file in an empty folder, and says which file is attacked.
        read: reads it (from the folder) as it is read in use; raises `TacitError` or `Unreadable`, and nothing else.
        mends: reading changes what lies there, so that each attempt needs it as it was.
    """

    name: str
    prepare: Callable[[Path], Path]
    read: Callable[[Path], object]
    mends: bool = False


def refusal(target: Target, folder: Path) -> str | None:
    """Why the target was refused, None where it was read. Everything else that can happen is a failure and is raised."""
    try:
        target.read(folder)
    except Enough:
        return None
    except (TacitError, Unreadable) as problem:
        said = str(problem)
        if not said.strip() or "\n" in said:
            raise AssertionError(f"a refusal is one line that says something, not {said!r}") from problem
        return said
    return None


def file(name: str, content: bytes, beside: bool = False) -> Callable[[Path], Path]:
    """What writes a file to attack; and beside it, where that is asked for, the pictures that lists name."""

    def prepare(folder: Path) -> Path:
        for path in seeds.PATHS if beside else ():
            (folder / path).write_bytes(seeds.pillow("PNG"))
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
        return folder / name

    return prepare


@cache
def once(name: str, make: Callable[[Path], object]) -> Path:
    """What is dear to make: made once in this process, and then copied."""
    shutil.rmtree(_base() / name, ignore_errors=True)  # an attempt that failed
    make(_base() / name)
    return _base() / name


@cache
def _base() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="tacit-hostile-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
