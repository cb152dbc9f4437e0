"""What a mutation is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Mutation:
    """A wrong line.

    Attributes:
        name: the method (`trust`: a protection that any run has) and what is wrong.
        file: where, below `src/tacit`.
        old: the text as it is; it occurs there once.
        new: what it becomes.
        test: the test that has to fail, below `tests`.
    """

    name: str
    file: str
    old: str
    new: str
    test: str
