"""The schedulers by name: what a spec and a record may ask for, and how each is made. A new one is a row here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from fashion.schedulers.asha import Asha, Hyperband
from fashion.schedulers.base import Compare, Fifo, Mode, Scheduler
from fashion.schedulers.median import Median
from fashion.schedulers.metrics import METRICS


class Settings(Protocol):
    """The fields of the spec's scheduler section that decisions depend on."""

    @property
    def name(self) -> str: ...
    @property
    def metric(self) -> str: ...
    @property
    def grace(self) -> float: ...
    @property
    def reduction(self) -> float: ...
    @property
    def compare(self) -> Compare: ...
    @property
    def brackets(self) -> int: ...


@dataclass(frozen=True)
class SchedulerRow:
    """about: what the spec's page says of it. make: from the settings and whether less or more of the metric is better.
    brackets: the default of the setting of that name."""

    about: str
    make: Callable[[Settings, Mode], Scheduler]
    brackets: int = 1


SCHEDULERS: Mapping[str, SchedulerRow] = {
    "asha": SchedulerRow(
        "asynchronous successive halving",
        lambda s, mode: Asha(s.grace, s.reduction, mode, s.brackets, s.metric, s.compare),
    ),
    "fifo": SchedulerRow("stops no trial early", lambda s, mode: Fifo(mode, s.metric, s.compare)),
    "median": SchedulerRow(
        "stops what is worse than the median of the other trials",
        lambda s, mode: Median(s.grace, mode=mode, metric=s.metric, compare=s.compare),
    ),
    "hyperband": SchedulerRow(
        "asha in several brackets",
        lambda s, mode: Hyperband(s.grace, s.reduction, mode, s.brackets, s.metric, s.compare),
        brackets=3,
    ),
}


def make_scheduler(settings: Settings) -> Scheduler:
    """The scheduler that a spec asks for. Raises KeyError for an unknown scheduler or metric, which the spec and the
    record refuse before."""
    return SCHEDULERS[settings.name].make(settings, METRICS[settings.metric].mode)
