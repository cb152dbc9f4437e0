"""What a person sees while a run goes on: lines as they come, and one line of progress where there is a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from tacit.train.session import Listener


class Terminal(Listener):
    """Prints how a run goes on standard error; a block in which it does so leaves the terminal as it was, however it ends."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        self._bar: Progress | None = None
        self._task = None

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *problem: object) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def say(self, line: str) -> None:
        if self._bar is not None and line.startswith("step") and "samples/s" in line:
            return  # the bar shows it
        self.console.print(line, markup=False, soft_wrap=True)

    def tell(self, step: int, steps: int, loss: float, speed: dict[str, float], verdict: str) -> None:
        if not self.console.is_terminal:
            return
        if self._bar is None:
            columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
            self._bar = Progress(*columns, console=self.console)
            self._bar.start()
            self._task = self._bar.add_task("", total=steps)
        assert self._task is not None
        rate, waiting = speed["samples_per_second"], speed["share_waiting"]
        description = f"{verdict}  loss {loss:.4f}  {rate:.0f} samples/s, {waiting:.0%} waiting for data"
        self._bar.update(self._task, completed=step, description=description)
        if step >= steps:
            self.__exit__()
