"""Who is told of what the recorder has put on disk: the display, TensorBoard's event files, a bucket."""

from __future__ import annotations

from typing import Protocol

from fashion.display.tensorboard import EventFiles
from fashion.record.trial import End, EpochReport
from fashion.schedulers.base import Decision
from fashion.storage.record_upload import Mirror


class Observer(Protocol):
    """What the recorder calls, each after what it tells of is on disk."""

    def trial_started(self, number: int) -> None:
        """The trial was handed to a worker, for the first time or again."""

    def reported(self, report: EpochReport, decision: Decision) -> None:
        """An epoch is done, and the scheduler has decided."""

    def ended(self, number: int, status: End, reason: str = "") -> None:
        """Nothing more will come of the trial. Its folder has been cleared."""

    def cleared(self, number: int, best_epoch: int | None, at: int) -> None:
        """Of the trial's checkpoints only those of its best epoch are left (None: no epoch's). Its end is in the
        journal before byte `at`. Follows `ended`; also told of trials that had ended before this command."""

    def note(self, text: str) -> None:
        """Something to tell the user that belongs to no epoch."""

    def waiting(self, text: str) -> None:
        """What the sweep waits for from now on; empty when it does not wait any more."""


class Ignoring:
    """An observer that does nothing: a class that inherits from it overrides what it needs."""

    def trial_started(self, number: int) -> None:
        return

    def reported(self, report: EpochReport, decision: Decision) -> None:
        return

    def ended(self, number: int, status: End, reason: str = "") -> None:
        return

    def cleared(self, number: int, best_epoch: int | None, at: int) -> None:
        return

    def note(self, text: str) -> None:
        return

    def waiting(self, text: str) -> None:
        return


class OnTensorBoard(Ignoring):
    """Writes the event files of the trials."""

    def __init__(self, files: EventFiles) -> None:
        self.files = files

    def reported(self, report: EpochReport, decision: Decision) -> None:
        self.files.add(report)

    def ended(self, number: int, status: End, reason: str = "") -> None:
        self.files.close(number)


class IntoBucket(Ignoring):
    """Lets the bucket forget what ended trials need no more. (The journal itself is uploaded by `Mirror` as it
    grows.)"""

    def __init__(self, mirror: Mirror) -> None:
        self.mirror = mirror

    def cleared(self, number: int, best_epoch: int | None, at: int) -> None:
        self.mirror.ended(number, best_epoch, at)
