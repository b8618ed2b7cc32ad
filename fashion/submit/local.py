"""A sweep that another process of this machine drives: followed through its journal, and stopped by a signal.

The run's lock says whether it is driven, `driver.json` by whom.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from fashion.display.live import Display, Mode
from fashion.display.progress import Bars
from fashion.errors import Problem, RunError
from fashion.files import parse
from fashion.record.journal import Event, events_from
from fashion.record.lock import driver_alive
from fashion.record.manifest import read_manifest
from fashion.record.run import TOLD, Run
from fashion.record.scheduler import RecordedSettings, settings_of

LOOK_SECONDS = 0.5  # between two looks at the journal


@dataclass(frozen=True)
class Driver:
    """The process that drives a run. started: when it took the run's lock, ISO 8601."""

    pid: int
    host: str
    started: str


@dataclass(frozen=True)
class RecordedPlan:
    """What the display of a recorded sweep needs to know of it."""

    total_trials: int
    scheduler: RecordedSettings


def driver_of(path: Path) -> Driver | None:
    """Who drives the run in this folder; None where nobody does, or where it can't be told at this moment."""
    if not driver_alive(path):
        return None
    try:
        holder = parse((path / "driver.json").read_bytes())
        return Driver(int(holder["pid"]), str(holder["host"]), str(holder["started"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None  # it is just being taken or given up


def drives(path: Path, driver: Driver) -> bool:
    """Whether that very process still drives the run."""
    return driver_alive(path) and driver_of(path) in (driver, None)


def interrupt(path: Path) -> Driver:
    """Send the run's driver what Ctrl-C sends, and return at once; `drives` tells when it has ended.

    Raises RunError where nobody drives the run, or where the process can't be reached from here.
    """
    driver = driver_of(path)
    if driver is None:
        raise RunError(Problem(str(path), "no process drives this run", fix="The same `run` goes on with it"))
    where = f"process {driver.pid} on {driver.host} drives this run"
    if driver.host != socket.gethostname():
        raise RunError(Problem(str(path), where, fix=f"Stop it there: fashion-sweep stop, or kill -INT {driver.pid}"))
    if not _holds(driver.pid, path / "lock"):
        fix = "It runs in another container, or it belongs to another user: stop it there, or as that user"
        raise RunError(Problem(str(path), f"{where}, and it can't be reached from here", fix=fix))
    try:
        os.kill(driver.pid, _heard(driver.pid))
    except PermissionError:
        raise RunError(Problem(str(path), f"{where} for another user", fix="Stop it as that user")) from None
    return driver


def follow_driver(path: Path, driver: Driver, location: str, mode: Mode, bars: Bars) -> Run:
    """Show the sweep that `driver` drives until it drives it no more. Returns the run as it then is.

    bars: are shown how much was read, in megabytes, where much has happened so far. KeyboardInterrupt leaves what is
    shown as it is; the sweep goes on. Raises RunError for a record that can't be understood.
    """
    run = Run(path, read_manifest(path))
    run.location = location
    active: set[int] = set()
    size = run.journal_path.stat().st_size
    for count, event in enumerate(_new(run), start=1):
        if event["event"] == "attempt" and str(event.get("time", "")) >= driver.started:
            active.add(event["trial"])
        elif event["event"] == "end":
            active.discard(event["trial"])
        if count % TOLD == 0:
            bars(f"reading {run.name}, MB", run.offset >> 20, size >> 20)
    bars.close()
    before = time.time() - datetime.fromisoformat(driver.started).timestamp()
    display = Display(run, RecordedPlan(run.total_trials, settings_of(run)), mode=mode, before=max(before, 0.0))
    try:
        if mode == "json":
            display.recorded()
        display.started()
        for number in sorted(active):
            display.trial_started(number)
        driven = True
        while driven:
            driven = drives(path, driver)  # asked first: what it recorded before it ended is then read below
            for event in _new(run):
                _tell(display, run, event)
            time.sleep(LOOK_SECONDS if driven else 0.0)
    except BaseException:
        display.leave()
        raise
    run.refresh()
    display.close()
    return run


def _new(run: Run) -> Iterator[Event]:
    """What was journalled since the last look, each event after it was taken into the run."""
    for event, end in events_from(run.journal_path, run.offset):
        try:
            run.apply(event)
        except (KeyError, TypeError, ValueError) as error:
            rule = f"not understood ({error!r})"
            raise RunError(Problem(str(run.journal_path), rule, str(event)[:120])) from error
        run.offset = end
        yield event


def _tell(display: Display, run: Run, event: Event) -> None:
    kind = event["event"]
    if kind == "attempt":
        display.trial_started(event["trial"])
    elif kind == "report":
        display.reported(*run.history[-1])
    elif kind == "end":
        display.ended(event["trial"], event["status"], event["reason"])
    elif kind == "note":
        display.note(f"trial {event['trial']}: {event['text']}")


def _holds(pid: int, lock: Path) -> bool:
    """Whether the process has the lock's file open: another one may have got its number."""
    folder = Path(f"/proc/{pid}/fd")
    try:
        return any(os.path.samefile(each, lock) for each in folder.iterdir() if os.path.exists(each))
    except OSError:
        return False


def _heard(pid: int) -> signal.Signals:
    """SIGINT, or SIGTERM for a process that ignores SIGINT, as what a script starts with `&` does."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("SigIgn:"):
            ignored = int(line.split()[1], 16)
            return signal.SIGTERM if ignored >> (signal.SIGINT - 1) & 1 else signal.SIGINT
    return signal.SIGINT
