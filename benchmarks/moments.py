"""Moments of a life: counted while it goes on, and one of them its last. What `kills.py` aims at."""

from __future__ import annotations

import os
import re
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tacit.core import files
from tacit.data import chunks
from tacit.evaluation import protocol
from tacit.train import events, folder, session
from tacit.train.loop import Loop
from tacit.train.step import Step
from tacit.train.watch import Watch
from tacit.use import embed

WRITES = {
    "configuration": r"/(config\.toml|run\.json|tokenizer\.json)",
    "store": r"/(samples\.bin|journal\.jsonl|begun\.json|store\.json)",
    "row": r"/(metrics|figures|speed)\.csv",
    "log": r"/log\.txt",
    "events": r"tfevents",
    "checkpoint": r"/(last|best)\.pt",
    "pictures": r"/pictures/",
    "result": r"/(verdict|encoder|reader|skipped)\.",
    "evaluation": r"/evaluations/",
    "embedding": r"/embeddings",
}
"""Moments within writing a file, by its path."""

CALLS = {
    "replacing": (os, "replace"),
    "step": (Step, "__call__"),
    "half a step": (Step, "forward"),
    "epoch": (session.Loader, "_ordered"),
    "check": (Watch, "look"),
    "saving": (Loop, "_save"),
    "decoding for the store": (chunks, "_decoded"),
    "drawing": (session, "_draw"),
    "evaluating": (protocol, "_case"),
    "arranging": (embed, "columns_of"),
}
"""Moments before and after calls."""


class Torn:
    """A file that takes so many bytes more, and ends the process with the last of them."""

    def __init__(self, file: Any, watch: Watchman, name: str) -> None:
        self.file, self.watch, self.name = file, watch, name

    def write(self, content: Any) -> Any:
        data = content if isinstance(content, str) else memoryview(content).cast("B")
        left = self.watch.left(self.name, len(data))
        written = self.file.write(content if left is None else data[:left])
        if left is not None:
            self.file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        return written

    def __enter__(self) -> Torn:
        return self

    def __exit__(self, *problem: object) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


@dataclass
class Watchman:
    """Counts what happens in a life, and ends it when a count is reached.

    Attributes:
        moment: where it ends; empty for a life that is only looked at.
        at: the byte, or twice the call (odd: after it), that it ends with.
        seen: how much of everything there was.
    """

    moment: str = ""
    at: int = 0
    seen: Counter[str] = field(default_factory=Counter)

    def left(self, name: str, length: int) -> int | None:
        """How many of these bytes are still written, where they are the last; None where life goes on."""
        before = self.seen[name]
        self.seen[name] += length
        return self.at - before if name == self.moment and before <= self.at < self.seen[name] else None

    def stand(self) -> None:
        """Take post at every file and call."""
        for module in (chunks, folder, events, session):
            vars(module)["open"] = self._open
        beside = files._beside

        def held(path: Path) -> tuple[Any, Path]:
            file, temporary = beside(path)
            return self._torn(file, path), temporary

        files._beside = held
        for name, (owner, attribute) in CALLS.items():
            setattr(owner, attribute, self._counted(name, getattr(owner, attribute)))

    def _open(self, path: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        file = open(path, mode, *args, **kwargs)  # noqa: SIM115
        return file if mode in ("r", "rb") else self._torn(file, path)

    def _torn(self, file: Any, path: Any) -> Any:
        name = next((name for name, pattern in WRITES.items() if re.search(pattern, str(path))), None)
        return file if name is None else Torn(file, self, name)

    def _counted(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            self._tick(name)
            found = call(*args, **kwargs)
            self._tick(name)
            return found

        return counted

    def _tick(self, name: str) -> None:
        if name == self.moment and self.seen[name] == self.at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.seen[name] += 1
