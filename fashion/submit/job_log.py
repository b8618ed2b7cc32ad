"""A sweep that runs elsewhere, shown here from its log: the events of `run --json --recorded`, and what else was
printed.

The events build a record in memory, and the display shows that as it shows the record of a sweep on this machine.
"""

from __future__ import annotations

import importlib.metadata
import re
import sys
import time
from collections import deque
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from fashion.display.live import Display, Mode
from fashion.display.streams import reader_gone
from fashion.errors import ClusterError, SpecError, printable
from fashion.files import parse
from fashion.record.run import Run
from fashion.record.trial import EpochReport
from fashion.spec.sweep_spec import SweepSpec
from fashion.submit.command import BEGINS

Event = Mapping[str, Any]
KINDS = ("sweep", "start", "report", "end", "note", "done")
VERSION = re.compile(r"fashion-sweep, version (\S+)")
KEPT = 20  # the lines printed before this began to look that are not events


class Follower:
    """Takes the log of the job `name`, which Ray started with `command`, line by line.

    behind: what comes first has happened before. It is not told one by one; `caught_up` then shows what it came to.
    """

    def __init__(self, name: str, command: str, mode: Mode = "auto", behind: bool = False) -> None:
        self.mode, self.behind = mode, behind and mode != "json"
        self.version = ""  # the cluster's
        self.done = False  # the sweep has told its end
        self._head = f"Running entrypoint for job {name}: "
        self._command_lines = command.count("\n")  # of those that Ray repeats, all but the first
        self._repeated = 0  # of them, those that are still to come
        self._headed = False
        self._begun = False
        self._early: list[Event] = []  # until the sweep itself is known
        self._sweep: Event | None = None
        self._run: Run | None = None
        self._spec: SweepSpec | None = None
        self._display: Display | None = None
        self._active: set[int] = set()
        self._notes: deque[str] = deque(maxlen=2)
        self._said: deque[str] = deque(maxlen=KEPT)
        self._seconds: float | None = None  # how long a sweep that has ended ran

    def line(self, text: str) -> None:
        """The next line, without its end.

        Raises ClusterError for an event that this version does not understand, and BrokenPipeError once nobody reads
        what is shown.
        """
        if reader_gone(sys.stdout):
            raise BrokenPipeError
        # Ray writes its head before it starts the command, but leaves it in a buffer: what ends at once is before it.
        if not self._headed and text.startswith(self._head):
            self._headed = self._begun = True
            self._repeated = self._command_lines
        elif self._repeated:
            self._repeated -= 1
        elif text == BEGINS:
            self._begun = True
        elif not self._begun:
            pass  # Ray's own lines
        elif not self.version and (found := VERSION.fullmatch(text)):
            self._compare(found[1])
        elif (event := event_of(text)) is None:
            self._print(text)
        else:
            self._event(event, text)

    def _event(self, event: Event, text: str) -> None:
        self.done = self.done or event["event"] == "done"
        if self.mode == "json":
            self._sweep = event if event["event"] == "sweep" else self._sweep
            _out(text, sys.stdout)
            return
        try:
            self._take(event)
        except (KeyError, TypeError, ValueError, SpecError) as error:
            words = " ".join(str(error).split())
            raise ClusterError(
                f"the cluster's fashion-sweep {self.version} writes events that this one can't read ({words}). "
                "Install the same version here, or look at the raw events: --json."
            ) from error

    def caught_up(self) -> None:
        """What comes from now on is new."""
        if self.behind:
            self.behind = False
            if self._run is not None:
                self._show()

    def finish(self, failed: bool) -> None:
        """The log has ended: the last picture, and of a failed sweep that ended before this began to look, its last
        words."""
        said = list(self._said) if self.behind and failed else []
        self.caught_up()
        if self._display:
            self._display.close()
        for text in said:
            _out(printable(text), sys.stderr)

    def leave(self) -> None:
        """Stop showing a sweep that goes on."""
        if self._display:
            self._display.leave()

    @property
    def location(self) -> str:
        """Where the run is, as the cluster names it; empty where the command ended before it said so."""
        return str(self._sweep["run"]) if self._sweep is not None else ""

    def _compare(self, version: str) -> None:
        self.version, own = version, importlib.metadata.version("fashion-sweep")
        if version != own:
            _out(
                f"Warning: the cluster has fashion-sweep {version}, this machine {own}: the cluster's decides.",
                sys.stderr,
            )

    def _print(self, text: str) -> None:
        if self.behind:
            self._said.append(text)
        else:
            _out(printable(text), sys.stderr)

    def _take(self, event: Event) -> None:
        if self._run is None:
            if event["event"] != "sweep":
                self._early.append(event)
                return
            self._open(event)
        else:
            self._record(event)
            if self._display:
                self._tell(event)

    def _open(self, sweep: Event) -> None:
        self._sweep, self._spec = sweep, SweepSpec.from_json(sweep["spec"])
        manifest = {name: sweep[name] for name in ("name", "spec", "extensions")}
        self._run = Run(Path(sweep["run"]), manifest)
        self._run.location = self.location
        for event in self._early:
            self._record(event)
        self._early.clear()
        if not self.behind:
            self._show()

    def _show(self) -> None:
        assert self._run is not None
        assert self._spec is not None
        assert self._sweep is not None
        before = time.time() - datetime.fromisoformat(self._sweep["time"]).timestamp()  # of the head's clock
        before = max(before, 0.0) if self._seconds is None else self._seconds
        self._display = Display(self._run, self._spec, mode=self.mode, before=before)
        for text in self._notes:
            self._display.note(text)
        self._display.started()
        for number in sorted(self._active):
            self._display.trial_started(number)

    def _record(self, event: Event) -> None:
        """Into the record in memory, as the driver wrote it into its own."""
        assert self._run is not None
        kind, recorded = event["event"], event.get("recorded", False)
        if kind == "start":
            number = event["trial"]
            self._know(number, event["config"])
            self._run.apply({"event": "attempt", "trial": number, "attempt": event["attempt"]})
            if not recorded:
                self._active.add(number)
        elif kind == "report":
            self._know(event["trial"], {})
            report = {name: event[name] for name in EpochReport.__dataclass_fields__}
            self._run.apply({"event": "report", "report": report, "decision": event["decision"]})
        elif kind == "end":
            self._run.apply({name: event[name] for name in ("event", "trial", "status", "reason")})
            self._active.discard(event["trial"])
        elif kind == "note":
            self._notes.append(event["text"])
        elif kind == "done":
            self._seconds = float(event["seconds"])

    def _know(self, number: int, told: Mapping[str, Any]) -> None:
        """A trial's configuration: what the sweep's trials share, and what was told of this one."""
        assert self._run is not None
        assert self._spec is not None
        if number in self._run.trials:
            return
        # A trial that was taken from another sweep has no start that would tell.
        drawn = not told and not self._spec.search.adaptive
        values: dict[str, Any] = {**self._spec.fixed, **told}
        config = self._spec.trial(number).model_dump(mode="json") if drawn else _nested(values)
        self._run.apply({"event": "trial", "trial": number, "config": config})

    def _tell(self, event: Event) -> None:
        assert self._display is not None
        assert self._run is not None
        if event["event"] == "start":
            self._display.trial_started(event["trial"])
        elif event["event"] == "report":
            self._display.reported(*self._run.history[-1])
        elif event["event"] == "end":
            self._display.ended(event["trial"], event["status"], event["reason"])
        elif event["event"] == "note":
            self._display.note(event["text"])


def event_of(text: str) -> Event | None:
    """The event in a line of the log; None for any other line."""
    if not text.startswith('{"event": '):
        return None
    try:
        event = parse(text)
    except ValueError:
        return None
    return event if event.get("event") in KINDS else None


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    sections: dict[str, Any] = {}
    for name, value in values.items():
        section, field = name.split(".")
        sections.setdefault(section, {})[field] = value
    return sections


def _out(text: str, stream: TextIO) -> None:
    print(text, file=stream, flush=True)
