"""A run's trials and reports as Arrow tables."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from fashion.display.rows import field_value, varying
from fashion.record.run import Run
from fashion.record.trial import EpochReport

LARGEST_INTEGER = 2**63


def trials_table(run: Run) -> pa.Table:
    """One row per recorded trial, by number.

    Columns: trial, status, reason, attempt; epochs_done of epochs; seconds, the wall time of all its epochs; best_epoch
    and that epoch's metrics under their names, null before the first finite val_loss; and each field that the sweep
    samples under its dotted name (`train.lr`), null where its condition leaves it out.
    """
    trials = [run.trials[number] for number in sorted(run.trials)]
    best = [trial.best() for trial in trials]
    last = [trial.reports[-1] if trial.reports else None for trial in trials]
    columns: dict[str, pa.Array] = {
        "trial": pa.array([trial.number for trial in trials], pa.int64()),
        "status": pa.array([trial.status for trial in trials], pa.string()),
        "reason": pa.array([trial.reason for trial in trials], pa.string()),
        "attempt": pa.array([trial.attempt for trial in trials], pa.int64()),
        "epochs_done": pa.array([each.epoch if each else 0 for each in last], pa.int64()),
        "epochs": pa.array(
            [
                report.epochs if report else field_value(trial.config, "train.epochs")
                for trial, report in zip(trials, last, strict=True)
            ],
            pa.int64(),
        ),
        "seconds": pa.array(
            [trial.left_out_seconds + math.fsum(each.seconds for each in trial.reports) for trial in trials],
            pa.float64(),
        ),
        "best_epoch": pa.array([each.epoch if each else None for each in best], pa.int64()),
    }
    sampled = {
        name: values_column([field_value(trial.config, name) for trial in trials]) for name in varying(run.manifest)
    }
    return _table(columns, _metrics(best), sampled)


def reports_table(run: Run) -> pa.Table:
    """One row per report, by trial and then by epoch.

    Columns: trial, attempt, epoch (from 1) of epochs, decision (the scheduler's: continue or stop), best (whether it is
    the trial's best epoch), seconds (wall time), time (UTC), setting (precision and layout), and every metric under its
    name, null where the report lacks it. Losses that diverged are NaN or infinite, as reported.
    """
    reports: list[EpochReport] = []
    decisions: list[str] = []
    best: list[bool] = []
    for number in sorted(run.trials):
        trial = run.trials[number]
        winner = trial.best()
        for report in sorted(trial.reports, key=lambda report: report.epoch):
            reports.append(report)
            decisions.append(trial.decisions[report.epoch])
            best.append(report is winner)
    columns: dict[str, pa.Array] = {
        "trial": pa.array([report.trial for report in reports], pa.int64()),
        "attempt": pa.array([report.attempt for report in reports], pa.int64()),
        "epoch": pa.array([report.epoch for report in reports], pa.int64()),
        "epochs": pa.array([report.epochs for report in reports], pa.int64()),
        "decision": pa.array(decisions, pa.string()),
        "best": pa.array(best, pa.bool_()),
        "seconds": pa.array([float(report.seconds) for report in reports], pa.float64()),
        "time": pa.array([_moment(report.time) for report in reports], pa.timestamp("ms", "UTC")),
        "setting": pa.array([report.setting for report in reports], pa.string()),
    }
    return _table(columns, _metrics(reports))


def values_column(values: Sequence[Any]) -> pa.Array:
    """Values of one field in the narrowest of bool, int64, float64 and string that has room for all; None is null. What
    fits none of them, as in a record that was edited by hand, becomes JSON text."""
    kinds = {type(value) for value in values if value is not None}
    if not kinds:
        return pa.nulls(len(values))
    if kinds == {bool}:
        return pa.array(values, pa.bool_())
    if kinds == {int} and all(value is None or abs(value) < LARGEST_INTEGER for value in values):
        return pa.array(values, pa.int64())
    if kinds <= {int, float}:
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    if kinds != {str}:
        values = [None if value is None else json.dumps(value) for value in values]
    return pa.array(values, pa.string())


def _metrics(reports: Iterable[EpochReport | None]) -> dict[str, pa.Array]:
    """A column for each metric that any of the reports has, in the order in which they first come."""
    found = [{} if report is None else report.metrics for report in reports]
    names = dict.fromkeys(name for metrics in found for name in metrics)
    return {name: pa.array([metrics.get(name) for metrics in found], pa.float64()) for name in names}


def _table(*groups: Mapping[str, pa.Array]) -> pa.Table:
    """All groups' columns side by side. Of columns with the same name the first stays: a record that was edited by hand
    may call a metric "trial"."""
    columns: dict[str, pa.Array] = {}
    for group in groups:
        for name, column in group.items():
            columns.setdefault(name, column)
    return pa.table(columns)


def _moment(text: str) -> datetime | None:
    return datetime.fromisoformat(text).astimezone(UTC) if text else None
