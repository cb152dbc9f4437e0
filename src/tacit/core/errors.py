"""What goes wrong, as one line for the person who can mend it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TacitError(Exception):
    """The user's input is wrong: the message says what was given, what was expected, how to mend it.

    The command line prints it as one line and exits with `exit_code`; no traceback.
    """

    exit_code = 2


class Stopped(TacitError):
    """Training was stopped by its own verdict (a collapse, a loss that is not finite)."""

    exit_code = 3


class Interrupted(TacitError):
    """A signal asked the run to end; a checkpoint lies in the run folder."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


def nearest(name: str, names: Iterable[str]) -> str:
    """`; did you mean 'simclr'?` where one of `names` is close to `name`, else the empty string."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""


def one_of(what: str, value: str, choices: Iterable[str]) -> str:
    """`value`, if it is among `choices`; a `TacitError` that names them and the nearest if not."""
    choices = list(choices)
    if value not in choices:
        raise TacitError(f"{what} is one of {', '.join(choices)}, not '{value}'{nearest(value, choices)}")
    return value
