"""A recorded run's scheduler, rebuilt by feeding it what was recorded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

from fashion.errors import Problem, RunError
from fashion.record.run import Run
from fashion.record.trial import EpochReport
from fashion.record.validate import SCHEDULER, check
from fashion.schedulers.base import Compare, Decision, Scheduler
from fashion.schedulers.registry import make_scheduler


@dataclass(frozen=True)
class RecordedSettings:
    """The scheduler section of a recorded spec, after `validate.SCHEDULER` has passed it."""

    name: str
    metric: str
    compare: Compare
    grace: float
    reduction: float
    brackets: int


def replay(
    scheduler: Scheduler, history: Iterable[tuple[EpochReport, Decision]]
) -> list[tuple[EpochReport, Decision, Decision]]:
    """Feed recorded reports, in the journal's order. Returns where the scheduler decides otherwise than was recorded,
    as (report, recorded, decided): empty unless the scheduler's settings have changed since."""
    decisions = [(report, recorded, scheduler.observe(report)) for report, recorded in history]
    return [entry for entry in decisions if entry[1] != entry[2]]


def scheduler_of(run: Run) -> Scheduler:
    """The scheduler of a recorded run in its present state, rungs included, rebuilt from the record alone."""
    scheduler = fresh_scheduler_of(run)
    try:
        replay(scheduler, run.history)
    except KeyError as error:
        raise RunError(Problem(str(run.journal_path), "its reports lack the scheduler's metric", str(error))) from None
    return scheduler


def fresh_scheduler_of(run: Run) -> Scheduler:
    """The scheduler of a recorded run before its first report. Raises RunError for settings that no scheduler has."""
    return make_scheduler(settings_of(run))


def settings_of(run: Run) -> RecordedSettings:
    """The scheduler section of a run's recorded spec. Raises RunError for settings that no scheduler has."""
    try:
        settings: dict[str, Any] = run.manifest["spec"]["scheduler"]
        check(settings, SCHEDULER, SCHEDULER)
    except (KeyError, ValueError) as error:
        place = f"{run.path / 'manifest.json'} spec.scheduler"
        raise RunError(Problem(place, "is not a scheduler of this version", str(error))) from None
    return RecordedSettings(**{each.name: settings[each.name] for each in fields(RecordedSettings)})
