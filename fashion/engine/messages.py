"""What a trial's processes tell the driver: one frozen type for each message.

They travel twice. A trial's own process puts them into Tune's result dictionary (`to_result`), from which the driver
takes them out (`from_result`). The workers of a trial of several hand them to their slot's mailbox, which passes them
on as they are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fashion.record.trial import EpochReport
from fashion.training.task import Heartbeat, Note, TrialEvent


@dataclass(frozen=True)
class Began:
    """An attempt has begun. slot: an id of the warm process or worker group that it runs in, which takes one trial
    after another. node: the name of its machine; of several machines all their names."""

    slot: str
    node: str


@dataclass(frozen=True)
class Reported:
    """An epoch is done; the trial waits for the decision."""

    report: EpochReport


@dataclass(frozen=True)
class Noted:
    """Something happened that a reader of the trial's numbers should know."""

    text: str


@dataclass(frozen=True)
class Alive:
    """A heartbeat: the trial is waiting for something, and has not hung."""


@dataclass(frozen=True)
class Moving:
    """The trial leaves a node that will be taken away, and goes on elsewhere."""


@dataclass(frozen=True)
class Blocked:
    """No trial can go on until something outside the trials is mended."""

    reason: str


@dataclass(frozen=True)
class Failed:
    """The trial failed, and would fail again."""

    reason: str


@dataclass(frozen=True)
class Finished:
    """The workers have finished their part of the trial."""


@dataclass(frozen=True)
class Broken:
    """The worker group ended, through no fault of the trial."""

    reason: str


# From a trial's process to the driver.
TrialMessage = Began | Reported | Noted | Alive | Moving | Blocked | Failed
# From a trial's workers to their slot.
End = Finished | Failed | Blocked
WorkerMessage = Began | Reported | Noted | Alive | End | Broken

_KINDS: Mapping[str, type[TrialMessage]] = {
    kind.__name__: kind for kind in (Began, Reported, Noted, Alive, Moving, Blocked, Failed)
}


def message_of(told: TrialEvent) -> Reported | Noted | Alive:
    """What the training loop yields, as a message."""
    match told:
        case Note(text):
            return Noted(text)
        case Heartbeat():
            return Alive()
    return Reported(told)


def to_result(message: TrialMessage) -> dict[str, Any]:
    """The message as a result for `tune.report`. It is text, because Tune looks into everything else."""
    content = message.report.to_json() if isinstance(message, Reported) else vars(message)
    return {"kind": type(message).__name__, "content": json.dumps(content)}


def from_result(result: Mapping[str, Any]) -> TrialMessage:
    """The message in a result of Tune's.

    Raises KeyError, TypeError or ValueError for a result that `to_result` did not make, and for a report that can't be
    recorded.
    """
    kind, content = _KINDS[result["kind"]], json.loads(result["content"])
    return Reported(EpochReport.from_json(content)) if kind is Reported else kind(**content)
