"""What tools that track experiments are told of each trial, whichever they are: read from the record once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fashion.display.rows import field_value, varying
from fashion.display.tensorboard import folder_of
from fashion.record.run import Run
from fashion.record.trial import EpochReport, Status, Trial

BEST = "best/"  # what the names of the best epoch's metrics begin with, as in TensorBoard's event files


@dataclass(frozen=True)
class TrialHistory:
    """One recorded trial.

    title: its number and what was sampled for it. sampled: the dotted fields that the sweep samples, with their values.
    config: all of its configuration. reports: by epoch. best: the report with the lowest finite val_loss. began, ended:
    seconds since 1970, None before the first report, and `ended` also while the trial is not final. digest: changes
    with anything that is recorded of the trial.
    """

    number: int
    title: str
    status: Status
    reason: str
    sampled: dict[str, Any]
    config: dict[str, Any]
    reports: tuple[EpochReport, ...]
    best: EpochReport | None
    began: float | None
    ended: float | None
    digest: str


def histories(run: Run) -> Iterator[TrialHistory]:
    """Every recorded trial, by number. The run must hold every report."""
    fields = varying(run.manifest)
    for number in sorted(run.trials):
        trial = run.trials[number]
        reports = tuple(sorted(trial.reports, key=lambda report: report.epoch))
        times = [_seconds(report.time) for report in reports if report.time]
        yield TrialHistory(
            number,
            folder_of(trial, fields),
            trial.status,
            trial.reason,
            {name: field_value(trial.config, name) for name in fields},
            trial.config,
            reports,
            trial.best(),
            times[0] - reports[0].seconds if times else None,
            times[-1] if times and trial.final else None,
            _digest(trial),
        )


def identity(run: Run) -> str:
    """A short name that no other run has, whatever it is called: 12 hexadecimal digits."""
    text = f"{run.name}/{run.manifest['created']}/{run.manifest['data_fingerprint']}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _seconds(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()


def _digest(trial: Trial) -> str:
    content = [trial.config, trial.status, trial.reason, trial.attempt, [each.to_json() for each in trial.reports]]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
