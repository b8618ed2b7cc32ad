"""Progress of long work on stderr, so that stdout stays a script's: bars on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

# Without a terminal: nothing of what is quick, then a line at most this often.
FIRST_SECONDS, LINE_SECONDS = 2.0, 15.0


class Bars:
    """One bar a label; called with (label, done, total). Shows nothing for work that never calls it."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._console = Console(stderr=True)
        # Stdout is left alone: it may be somebody's who goes before the bars do, and rich would put it back.
        self._progress = Progress(*columns, console=self._console, transient=True, redirect_stdout=False)
        self._tasks: dict[str, TaskID] = {}
        self._due: dict[str, float] = {}  # label -> when its next line is due

    def __call__(self, label: str, done: int, total: int) -> None:
        if not self._console.is_terminal:
            self._line(label, done, total)
            return
        if label not in self._tasks:
            self._progress.start()  # only now: an empty display would still print a line
            self._tasks[label] = self._progress.add_task(label, total=total)
        self._progress.update(self._tasks[label], completed=done, total=total)

    def of(self, label: str) -> Callable[[int, int], None]:
        """A callable of (done, total) for one piece of work."""
        return partial(self, label)

    def _line(self, label: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now < self._due.setdefault(label, now + FIRST_SECONDS):
            return
        self._due[label] = now + LINE_SECONDS
        self._console.print(f"{label}: {done} of {total}", highlight=False, soft_wrap=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take the bars off the terminal."""
        if self._tasks:  # else it prints a blank line
            self._progress.stop()
            self._tasks.clear()
