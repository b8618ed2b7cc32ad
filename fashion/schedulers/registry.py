"""The schedulers by name: what a spec and a record may ask for, and how each is made. A new one is a row here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from fashion.schedulers.asha import Asha, Hyperband
from fashion.schedulers.base import Compare, Fifo, Mode, Scheduler, mode_of
from fashion.schedulers.median import Median


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
class Row:
    """make: from the settings and whether less or more of the metric is better. brackets: how many by default."""

    make: Callable[[Settings, Mode], Scheduler]
    brackets: int = 1


SCHEDULERS: Mapping[str, Row] = {
    "asha": Row(lambda s, mode: Asha(s.grace, s.reduction, mode, s.brackets, s.metric, s.compare)),
    "fifo": Row(lambda s, mode: Fifo(mode, s.metric, s.compare)),
    "median": Row(lambda s, mode: Median(s.grace, mode=mode, metric=s.metric, compare=s.compare)),
    "hyperband": Row(
        lambda s, mode: Hyperband(s.grace, s.reduction, mode, s.brackets, s.metric, s.compare), brackets=3
    ),
}


def make_scheduler(settings: Settings) -> Scheduler:
    """The scheduler that a spec asks for. Raises KeyError for a name that is no row (the spec refuses it earlier)."""
    return SCHEDULERS[settings.name].make(settings, mode_of(settings.metric))
