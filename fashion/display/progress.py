"""The progress of long work, on stderr, so that stdout has only what a script reads.

On a terminal there are bars, elsewhere a line now and then.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from fashion.display.columns import CALM

# Without a terminal: no line for what is done within FIRST_SECONDS, then one at most every LINE_SECONDS.
FIRST_SECONDS, LINE_SECONDS = 2.0, 15.0


class Bars:
    """One bar for each label. Call it with (label, done, total), a total of 0 where it is not known; work that never
    calls it shows nothing."""

    def __init__(self) -> None:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(complete_style=CALM, finished_style=CALM),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        self._console = Console(stderr=True, markup=False, emoji=False)
        # rich would replace stdout and restore it at the end, by when its owner may have closed it.
        self._progress = Progress(*columns, console=self._console, transient=True, redirect_stdout=False)
        self._tasks: dict[str, TaskID] = {}
        self._due: dict[str, float] = {}  # label -> when its next line is due

    def __call__(self, label: str, done: int, total: int) -> None:
        if not self._console.is_terminal or self._console.is_dumb_terminal:  # on such a one rich draws no bar
            self._line(label, done, total)
            return
        if label not in self._tasks:
            self._progress.start()  # not earlier: an empty display would still print a line
            self._tasks[label] = self._progress.add_task(label, total=total or None)
        self._progress.update(self._tasks[label], completed=done, total=total or None)

    def of(self, label: str) -> Callable[[int, int], None]:
        """A callable of (done, total) that moves the bar of this label."""
        return partial(self, label)

    def _line(self, label: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now < self._due.setdefault(label, now + FIRST_SECONDS):
            return
        self._due[label] = now + LINE_SECONDS
        text = f"{label}: {done} of {total}" if total else f"{label}: {done}"
        self._console.print(text, highlight=False, soft_wrap=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove the bars from the terminal."""
        if self._tasks:  # without any, stop() would print a blank line
            self._progress.stop()
            self._tasks.clear()
