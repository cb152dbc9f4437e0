"""What goes wrong, as one line for the person who can mend it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TacitError(Exception):
    """The user's input is wrong: the message says what was given, what was expected, how to mend it.

    The command line prints it as one line and exits with `exit_code`; no traceback.
    """

    exit_code = 2

    def __init__(self, message: str = "") -> None:
        super().__init__(plain(message))


class Hindered(TacitError):
    """The world outside is in the way (a full disk, data that is gone): the message says what to mend before going on."""


class Stopped(TacitError):
    """Training was stopped by its own verdict (a collapse, a loss that is not finite)."""

    exit_code = 3


class Interrupted(TacitError):
    """A signal asked the run to end; a checkpoint lies in the run folder."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


class Lost(TacitError):
    """Another process of the run ended or fell silent. The code is that of a failure which may well not happen again."""

    exit_code = 75

    def __init__(self, what: str, mend: str) -> None:
        super().__init__(f"{what}; {mend}")
        self.mend = mend


class Echoed(TacitError):
    """What another process of the run ended with, and has said: this one ends likewise, and says nothing."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def plain(text: str) -> str:
    """The text in one line that a terminal can show: what names of files may hold beyond that is written as an escape."""
    return text if text.isprintable() else "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def said(problem: BaseException) -> str:
    """What an exception of somebody else's says, in one line of at most 200 characters; its type where it says nothing."""
    text = problem.strerror if isinstance(problem, OSError) and problem.strerror else str(problem)
    return " ".join(text.split())[:200] or type(problem).__name__


def nearest(name: object, names: Iterable[str]) -> str:
    """`; did you mean 'simclr'?` where one of `names` is close to `name`, else the empty string. Files may hold anything."""
    close = difflib.get_close_matches(str(name), list(names), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""


def one_of(what: str, value: str, choices: Iterable[str]) -> str:
    """`value`, if it is among `choices`; a `TacitError` that names them and the nearest if not."""
    choices = list(choices)
    if value not in choices:
        raise TacitError(f"{what} is one of {', '.join(choices)}, not '{value}'{nearest(value, choices)}")
    return value
