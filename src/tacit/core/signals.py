"""How a process is asked to end: by a person (Ctrl-C), the system (SIGTERM), a scheduler (SIGUSR1), a lost line (SIGHUP)."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from tacit.core.errors import Interrupted

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)


class Signalled(BaseException):
    """A signal asks this process to end. No `Exception`: what shields against broken files must let it pass."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def raise_it(number: int) -> None:
    """The answer of whoever has nothing to bring to an end first."""
    raise Signalled(number)


@contextmanager
def heard(answer: Callable[[int], None]) -> Iterator[None]:
    """Within the block, `answer` is called with the number of every signal to end; a second Ctrl-C ends the process at once.

    What whoever started the process switched off (`nohup`) stays off. Outside the main thread nothing changes: who runs
    that thread handles signals.
    """
    asked = False

    def hear(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked and number == signal.SIGINT:
            os._exit(128 + number)
        asked = True
        answer(number)

    before = {}
    for number in ENDING:
        if signal.getsignal(number) is signal.SIG_IGN:
            continue
        try:
            before[number] = signal.signal(number, hear)
        except ValueError:  # not the main thread
            break
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def told(words: str) -> Iterator[None]:
    """A signal to end that arrives within the block leaves it as `Interrupted` with these words."""
    try:
        yield
    except (KeyboardInterrupt, Signalled) as stop:
        raise Interrupted(words, getattr(stop, "number", signal.SIGINT)) from None
