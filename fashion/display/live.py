"""What a sweep shows while it runs: a live picture on a terminal, one line an event elsewhere, or JSON lines.

It sees the record only, and it can't hurt the sweep: once its stream is gone (a closed pipe, a terminal that hung up)
it is silent.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections import deque
from types import TracebackType
from typing import Any, Literal, Protocol, Self, TextIO, cast

from rich.console import Console

from fashion.display import rows as words
from fashion.display.rows import Row
from fashion.display.screen import Repainted, Screen
from fashion.display.tables import View, picture
from fashion.files import now
from fashion.record.run import Run
from fashion.record.trial import EpochReport, Trial
from fashion.record.trial_files import PROGRESS
from fashion.schedulers.base import Decision
from fashion.schedulers.registry import Settings, make_scheduler

Mode = Literal["auto", "live", "plain", "json"]
LINE_METRICS = ("val_loss", "val_accuracy", "train_loss", "lr")
# The last picture stays on the screen, above what the command says afterwards and the shell's prompt.
BELOW = 4  # lines
TALLEST = 44  # lines of the last picture, on however tall a terminal
MANY = 100  # trials


class Planned(Protocol):
    """What a display needs to know of a sweep beforehand. A `SweepSpec` is one."""

    @property
    def total_trials(self) -> int: ...
    @property
    def scheduler(self) -> Settings: ...


class Display:
    """Is told of each event after it is recorded in `run`. `mode` auto is live on a terminal and plain lines elsewhere.
    `before`: seconds that the sweep has run when this begins to show it."""

    def __init__(
        self, run: Run, spec: Planned, stream: TextIO | None = None, mode: Mode = "auto", before: float = 0.0
    ) -> None:
        self.run = run
        self.total = spec.total_trials
        self._stream = _Guarded(stream or sys.stdout)
        if mode == "auto":
            mode = "live" if self._stream.isatty() and os.environ.get("TERM") not in ("dumb", "unknown") else "plain"
        self.mode: Mode = mode
        self._fields = words.varying(run.manifest)
        self._names = words.short_names(self._fields)
        self._scheduler = make_scheduler(
            spec.scheduler
        )  # a copy of its own, fed from the record: it shows decisions and makes none
        self._fed = 0
        self._feed()
        self._active: set[int] = set()
        self._rows: dict[int, Row] = {}
        for number in run.trials:
            self._update(number)
        self._best = words.leader(self._rows.values())
        self._notes: deque[str] = deque(maxlen=2)
        self._progress: dict[int, tuple[float, float]] = {}
        self._began = time.monotonic() - before
        self._closed = False
        self._waiting = ""
        self._live: Repainted | None = None
        if mode == "live":
            self._console = Console(file=cast(TextIO, self._stream), force_terminal=True, markup=False, emoji=False)
            # What goes to a file must not be caught and painted on the terminal.
            self._live = Repainted(
                Screen(self._view),
                console=self._console,
                # A picture takes a tenth of a second of the driver's own time where there are many trials.
                refresh_per_second=4 if self.total <= MANY else 1,
                transient=True,
                vertical_overflow="crop",
                redirect_stdout=sys.stdout.isatty(),
                redirect_stderr=sys.stderr.isatty(),
            )

    def recorded(self) -> None:
        """Write what an earlier command recorded as JSON lines, which then tell the whole sweep, before `started`."""
        for trial in self.run.trials.values():
            self._event("start", trial=trial.number, **self._attempt(trial), recorded=True)
        for report, decision in self.run.history:
            self._event("report", **{**report.to_json(), "decision": decision, "best": False}, recorded=True)
        for number, row in self._rows.items():
            if row.status in words.FINAL:
                self._event("end", trial=number, status=row.status, reason=row.reason, recorded=True)

    def started(self) -> None:
        """The sweep begins or goes on."""
        counts = words.counts(self._rows.values(), self.total)
        done = sum(counts.get(status, 0) for status in words.FINAL)
        epochs = sum(len(trial.reports) for trial in self.run.trials.values())
        manifest = self.run.manifest
        told = {"spec": manifest["spec"], "extensions": manifest.get("extensions", [])} if self.mode == "json" else {}
        self._event(
            "sweep", name=self.run.name, run=self.run.location, trials=self.total, final=done, epochs_recorded=epochs,
            **told,
        )  # fmt: skip
        if self._live:
            self._live.start(refresh=True)

    def trial_started(self, number: int) -> None:
        """A trial was handed to a worker, for the first time or again."""
        self._active.add(number)
        self._update(number)
        self._event("start", trial=number, **self._attempt(self.run.trials[number]))

    def reported(self, report: EpochReport, decision: Decision) -> None:
        """An epoch and the scheduler's decision are on disk."""
        self._feed()
        self._update(report.trial)
        row = self._rows[report.trial]
        best = math.isfinite(row.best) and (self._best is None or row.order < self._best.order)
        if best:
            self._best = row
        self._event("report", **{**report.to_json(), "decision": decision, "best": best})

    def ended(self, number: int, status: str, reason: str = "") -> None:
        """A trial has ended."""
        self._active.discard(number)
        self._update(number)
        row = self._rows[number]
        self._event("end", trial=number, status=status, epochs_done=row.epoch, **_best_of(row), reason=reason)

    def cleared(self, number: int, best_epoch: int | None, at: int) -> None:
        """A trial's files are not shown."""

    def note(self, text: str) -> None:
        """Something to tell that does not belong to an epoch: a retry, a repaired journal."""
        self._notes.append(text)
        self._event("note", text=text)

    def waiting(self, text: str) -> None:
        """What the sweep waits for from now on; empty when it does not wait any more."""
        self._waiting = text
        if text:
            self._event("note", text=text)

    def leave(self) -> None:
        """Stop showing a sweep that goes on."""
        if self._live:
            self._live.stop()
        self._closed = True

    def close(self) -> None:
        """The last picture or line; afterwards the display is silent. Closing twice is closing once."""
        if self._closed:
            return
        self._active.clear()
        self._waiting = ""
        for number in self.run.trials:
            self._update(number)
        if self._live:
            self._live.stop()
            height = max(min(self._console.height - BELOW, TALLEST), 1)
            self._console.print(picture(self._view(), self._console.width, height))
        counts = words.counts(self._rows.values(), self.total)
        best = words.leader(self._rows.values())
        found = {"best_trial": best.number, "best_epoch": best.best_epoch, **_best_of(best)} if best else {}
        self._event("done", run=self.run.location, **counts, **found, seconds=round(time.monotonic() - self._began, 1))
        self._stream.flush()
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _attempt(self, trial: Trial) -> dict[str, Any]:
        config = {name: words.field_value(trial.config, name) for name in self._fields}
        return {"attempt": trial.attempt, "epochs_done": len(trial.reports), "config": config}

    def _feed(self) -> None:
        for entry, _ in self.run.history[self._fed :]:
            self._scheduler.observe(entry)
        self._fed = len(self.run.history)

    def _update(self, number: int) -> None:
        self._rows[number] = words.row(self.run.trials[number], self._fields, self._active)

    def _event(self, event: str, **values: Any) -> None:
        if self.mode == "live" or self._closed:
            return
        if self.mode == "json":
            line = json.dumps({"event": event, "time": now(), **values}, allow_nan=False)
        else:
            line = f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {event:<6} {self._plain(event, values)}"
        self._stream.write(line + "\n")
        self._stream.flush()

    def _plain(self, event: str, values: dict[str, Any]) -> str:
        """One line of key=value for an event: what a person greps for; JSON lines have the rest."""
        if event == "report":
            metrics = {name: float(values["metrics"][name]) for name in LINE_METRICS if name in values["metrics"]}
            rest = {name: values[name] for name in ("seconds", "decision")} | ({"best": True} if values["best"] else {})
            values = {"trial": values["trial"], "epoch": f"{values['epoch']}/{values['epochs']}", **metrics, **rest}
        config = {self._names[name]: value for name, value in values.pop("config", {}).items()}
        return " ".join(f"{key}={_word(key, value)}" for key, value in {**values, **config}.items() if value != "")

    def _view(self) -> View:
        """Called by the refreshing thread: everything it reads is replaced as a whole, never changed in place."""
        rows = list(self._rows.values())
        part = {row.number: self._part(row) for row in rows if row.status == "running"}
        scheduler = self._scheduler
        return View(
            self.run.name, self.run.location, self.total, rows, self._fields, scheduler.rungs(), scheduler.compare,
            scheduler.metric, time.monotonic() - self._began, part, dict(scheduler.missed), self._waiting,
            tuple(self._notes), ascii=not self._stream.encoding.lower().startswith("utf"),
        )  # fmt: skip

    def _part(self, row: Row) -> float:
        """The fraction of its current epoch that a trial has done, from its worker's own note, read once a second."""
        looked, share = self._progress.get(row.number, (-math.inf, 0.0))
        if time.monotonic() - looked >= 1.0:
            try:
                note = json.loads((self.run.trial_dir(row.number) / PROGRESS).read_bytes())
                share = note["epoch"] - 1 + note["step"] / note["steps"]
            except (
                OSError,
                ValueError,
                KeyError,
                ZeroDivisionError,
            ):  # not written yet, or the worker has another disk
                share = 0.0
            self._progress[row.number] = (time.monotonic(), share)
        return min(max(share - row.epoch, 0.0), 0.99) if share < row.epoch + 1 else 0.0


class _Guarded:
    """A text stream that turns silent when its other end is gone: a display must not end a sweep."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._gone = False
        self.encoding = getattr(stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        if not self._gone:
            try:
                # A terminal that lacks a character shows "?"; rich draws its bars in ASCII there.
                self._stream.write(text.encode(self.encoding, "replace").decode(self.encoding))
            except OSError:
                self._lose()
        return len(text)

    def flush(self) -> None:
        if not self._gone:
            try:
                self._stream.flush()
            except OSError:
                self._lose()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    def _lose(self) -> None:
        self._gone = True
        if self._stream in (sys.stdout, sys.stderr):
            # What is still buffered would fail once more when the interpreter exits.
            empty = os.open(os.devnull, os.O_WRONLY)
            os.dup2(empty, self._stream.fileno())
            os.close(empty)


def _best_of(row: Row) -> dict[str, Any]:
    return {"val_loss": row.best, "val_accuracy": row.accuracy} if math.isfinite(row.best) else {}


def _word(key: str, value: Any) -> str:
    """A value in a plain line: one word, or a JSON string."""
    if isinstance(value, float):
        return f"{value:.4f}" if "loss" in key or "accuracy" in key else f"{value:.4g}"
    text = "null" if value is None else ("no", "yes")[value] if isinstance(value, bool) else str(value)
    return json.dumps(text, ensure_ascii=False) if any(character in text for character in ' "=\n\t') else text
