"""What a trial tells while it trains: the epochs' reports, notes for the user and signs of life."""

from __future__ import annotations

from dataclasses import dataclass

from fashion.record.trial import EpochReport


@dataclass(frozen=True)
class Note:
    """A line that the user should read, and that is recorded with the trial."""

    text: str


@dataclass(frozen=True)
class Heartbeat:
    """The trial is alive; its reports wait for the bucket."""


TrialEvent = EpochReport | Note | Heartbeat
