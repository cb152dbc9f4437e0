"""A terminal shows how a run goes on, and is left as it was found."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from tacit.core.errors import Interrupted
from tacit.terminal import Terminal

HIDDEN, SHOWN = "\x1b[?25l", "\x1b[?25h"
SPEED = {"samples_per_second": 10.0, "share_waiting": 0.1}


def test_an_interrupted_run_gives_the_cursor_back() -> None:
    told = io.StringIO()

    def run() -> None:
        with Terminal() as terminal:
            terminal.console = Console(file=told, force_terminal=True)
            terminal.tell(3, 10, 1.0, SPEED, "undecided")
            raise Interrupted("interrupted", 2)

    with pytest.raises(Interrupted):
        run()
    assert HIDDEN in told.getvalue()
    assert told.getvalue().rindex(SHOWN) > told.getvalue().rindex(HIDDEN)


def test_a_line_stays_one_line_where_nobody_looks_at_a_terminal() -> None:
    terminal = Terminal()
    terminal.console = Console(file=io.StringIO(), width=80)
    terminal.say(line := "a long line " * 20)
    assert terminal.console.file.getvalue() == line + "\n"  # pyright: ignore
