"""What the record and a trial's folder tell of what it said and what became of it, in the order of time."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from fashion.bucket.address import Address
from fashion.record.journal import events_from
from fashion.record.manifest import versions_in_words
from fashion.record.run import Run
from fashion.record.trial_files import ERROR, folder_name

LARGEST_SHOWN = 200_000  # bytes of a kept traceback that are read
METRICS = ("val_loss", "val_accuracy", "train_loss")


@dataclass(frozen=True)
class LogLine:
    """What happened to a trial. time: ISO 8601 with its zone, empty where an early version did not record it. event:
    trial, taken, attempt, slot, report, note or end."""

    trial: int
    time: str
    event: str
    text: str

    @property
    def failed(self) -> bool:
        """Whether it tells that the trial has failed."""
        return self.event == "end" and self.text.startswith("failed")


@dataclass(frozen=True)
class KeptError:
    """The traceback with which a trial failed. path: where it is, or will be, kept. text: None where there is none."""

    path: str
    text: str | None


def log_lines(run: Run, trial: int | None = None, offset: int = 0) -> Iterator[tuple[LogLine, int]]:
    """The journal's events from byte `offset` on as lines, each with the offset behind it; those of one trial or, with
    every epoch left out, of all. Raises RunError for a damaged journal."""
    for event, end in events_from(run.journal_path, offset):
        number = event["report"]["trial"] if event["event"] == "report" else event["trial"]
        if trial is None and event["event"] in ("report", "trial", "slot"):
            continue
        if trial in (None, number):
            yield LogLine(number, event.get("time", ""), event["event"], _told(run, event)), end


def kept_error(run: Run, number: int, address: Address | None = None) -> KeptError:
    """The traceback that a failed trial left in its folder, or in the bucket at `address`. Raises StorageError where
    the bucket can't be read."""
    name = f"{folder_name(number)}/{ERROR}"
    path = run.path / name
    if path.is_file():
        return KeptError(str(path), _read(path))
    if address is None:
        return KeptError(str(path), None)
    from fashion.bucket.store import NotThereError, Store

    try:
        content = Store(address).get(name)
    except NotThereError:
        return KeptError(f"{address}/{name}", None)
    return KeptError(f"{address}/{name}", content[:LARGEST_SHOWN].decode(errors="replace"))


def _read(path: Path) -> str:
    with open(path, "rb") as stream:
        return stream.read(LARGEST_SHOWN).decode(errors="replace")


def _told(run: Run, event: Mapping[str, Any]) -> str:
    kind = event["event"]
    versions = event.get("versions")
    under = f" under {versions_in_words(run.manifest, versions)}" if versions else ""
    if kind == "trial":
        return "recorded"
    if kind == "taken":
        return f"taken from trial {event['of']} of {event['run']}{under}"
    if kind == "attempt":
        return f"attempt {event['attempt']} begins{under}"
    if kind == "slot":
        return f"in slot {event['slot']} on {event['node']}"
    if kind == "note":
        return str(event["text"])
    if kind == "end":
        reason = event.get("reason", "")
        return f"{event['status']}: {reason}" if reason else str(event["status"])
    return _epoch(event)


def _epoch(event: Mapping[str, Any]) -> str:
    report = event["report"]
    metrics = {name: float(report["metrics"][name]) for name in METRICS if name in report["metrics"]}
    texts = [f"{name} {value:.4f}" if math.isfinite(value) else f"{name} {value}" for name, value in metrics.items()]
    told = ", ".join([*texts, f"{report['seconds']:.1f} s"])
    stop = "; stopped" if event["decision"] == "stop" else ""
    return f"epoch {report['epoch']} of {report['epochs']}: {told}{stop}"


def local_time(moment: str) -> str:
    """A recorded time in this machine's zone, to the second; blanks for none."""
    if not moment:
        return " " * 19
    return datetime.fromisoformat(moment).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def to_json(line: LogLine) -> str:
    return json.dumps(vars(line))
