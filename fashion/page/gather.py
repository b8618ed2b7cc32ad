"""What a page shows of a run, read from its record once."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fashion.api.recorded_run import Progress, RecordedRun
from fashion.api.validation import ValidationPredictions
from fashion.display.rows import Row, by_importance, row, short_names, varying
from fashion.errors import RunError
from fashion.page.importance import RungImportance, importance_at
from fashion.reading.certainty import Certainty
from fashion.record.ranking import Ranked, ranking
from fashion.record.run import Run
from fashion.record.scheduler import scheduler_of
from fashion.record.trial import EpochReport, Trial
from fashion.statistics.results import Interval

METRIC = "val_loss"  # what a run's winner is chosen by
RUNGS = 4  # for which the page says what mattered: the first ones, which most trials reach, and the last


@dataclass(frozen=True)
class PageRun:
    """A run, and what follows from it.

    rows: every trial with its curve, by number. fields: the sampled fields, the most important first, and labels the
    names they are shown under. fraction: whether rungs are shares of a trial's own schedule, in (0, 1], and not epochs.
    certainty: how sure one can be of the winner; None without one. predictions: the winner's; None where they can't be
    read, and `unread` says why.
    """

    opened: RecordedRun
    rows: tuple[Row, ...]
    fields: tuple[str, ...]
    labels: dict[str, str]
    winner: Ranked | None
    rungs: tuple[float, ...]
    fraction: bool
    certainty: Certainty | None
    mattered: tuple[RungImportance, ...]
    predictions: ValidationPredictions | None
    unread: str

    @property
    def name(self) -> str:
        return self.opened.name

    @property
    def manifest(self) -> dict[str, Any]:
        return self.opened.record.manifest

    @property
    def trials(self) -> list[Trial]:
        return [self.opened.record.trials[each.number] for each in self.rows]

    @property
    def total(self) -> int:
        """How many trials the spec asks for; those recorded where it does not say."""
        try:
            return max(self.opened.record.total_trials, len(self.rows))
        except RunError:
            return len(self.rows)

    @property
    def running(self) -> bool:
        return self.opened.record.driven

    def interval(self, trial: int, metric: str) -> Interval | None:
        """Of a trial's metric at its best epoch; None where its predictions are missing."""
        return self._intervals.get(trial, {}).get(metric)

    @cached_property
    def _intervals(self) -> dict[int, dict[str, Interval]]:
        return {} if self.certainty is None else {each.trial: each.intervals for each in self.certainty.trials}

    @cached_property
    def tied(self) -> frozenset[int]:
        """The trials that can't be told from the winner, the winner among them; empty where that is not known."""
        return frozenset() if self.certainty is None else frozenset(self.certainty.tied)

    @property
    def winner_reports(self) -> list[EpochReport]:
        """The winner's reports by epoch; none without a winner."""
        if self.winner is None:
            return []
        return sorted(self.opened.record.trials[self.winner.trial].reports, key=lambda report: report.epoch)


def gather(opened: RecordedRun, progress: Progress | None = None) -> PageRun:
    """opened: read with every report. progress: is called while statistics are computed.

    Raises RunError for a record that can't be understood, StorageError for a bucket that can't be read.
    """
    record = opened.record
    fields = varying(record.manifest)
    rows = tuple(row(record.trials[number], fields) for number in sorted(record.trials))
    fields = by_importance(fields, rows)
    ranked = ranking(record, 1)
    scheduler = scheduler_of(record)
    rungs = tuple(sorted({state.rung for state in scheduler.rungs()}))
    fraction = scheduler.compare == "fraction"
    predictions, unread = None, "no trial has reported a finite val_loss"
    if ranked:
        try:
            predictions, unread = opened.predictions(ranked[0].trial), ""
        except RunError as error:
            unread = str(error)
    return PageRun(
        opened,
        rows,
        tuple(fields),
        short_names(fields),
        ranked[0] if ranked else None,
        rungs,
        fraction,
        opened.certainty(progress) if ranked else None,
        _mattered(record, fields, rungs, fraction, progress),
        predictions,
        unread,
    )


def spread_of(manifest: Mapping[str, Any], name: str) -> str:
    """How a dotted field was sampled, where that says which scale it has: "loguniform", "uniform", or empty."""
    section, _, field = name.partition(".")
    asked = json.dumps(manifest["spec"].get(section, {}).get(field))
    return next((word for word in ("loguniform", "uniform") if f'"{word}"' in asked), "")


def _mattered(
    record: Run, fields: Sequence[str], rungs: Sequence[float], fraction: bool, progress: Progress | None
) -> tuple[RungImportance, ...]:
    trials = list(record.trials.values())
    logarithmic = [name for name in fields if spread_of(record.manifest, name) == "loguniform"]
    compared: list[tuple[str, dict[int, float]]] = []  # a place and the losses there
    for rung in [*rungs[: RUNGS - 1], *rungs[RUNGS - 1 :][-1:]]:
        losses = {trial.number: loss for trial in trials if math.isfinite(loss := _loss_at(trial, rung, fraction))}
        compared.append(
            (f"at {100 * rung:.3g} % of a trial's schedule" if fraction else f"at epoch {rung:.3g}", losses)
        )
    ends = {trial.number: best.metrics[METRIC] for trial in trials
            if trial.status == "completed" and (best := trial.best()) is not None}  # fmt: skip
    compared.append(("that completed, at their best epochs", ends))
    found = []
    for number, (place, losses) in enumerate(compared):
        if progress is not None:
            progress("what mattered, by rung", number, len(compared))
        found.append(importance_at(place, losses, record.trials, fields, logarithmic))
    return tuple(found)


def _loss_at(trial: Trial, rung: float, fraction: bool) -> float:
    """The loss of the first report at or behind a rung; NaN for a trial that did not reach it."""
    for report in sorted(trial.reports, key=lambda each: each.epoch):
        if (report.progress if fraction else report.epoch) >= rung - 1e-9:
            return report.metrics.get(METRIC, math.nan)
    return math.nan
