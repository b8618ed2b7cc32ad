"""A run as an MLflow experiment in an SQLite file: one experiment per sweep, one MLflow run per trial.

Metrics have the epoch as their step. `best/…` are those of the best epoch so far; the last of them, which MLflow's
table shows, are the trial's best.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from fashion.api.recorded_run import RecordedRun
from fashion.errors import Problem, RunError
from fashion.export.histories import BEST, TrialHistory, histories, identity
from fashion.export.targets import Exported, Progress, imported
from fashion.record.run import Run
from fashion.record.trial import EpochReport, Status

# A trial that the scheduler stopped has done what was asked of it.
STATUSES: Mapping[Status, str] = {
    "completed": "FINISHED",
    "stopped": "FINISHED",
    "failed": "FAILED",
    "running": "RUNNING",
    "interrupted": "SCHEDULED",
}
RUN, TRIAL, DIGEST, STATUS, REASON, BEST_EPOCH = (
    f"fashion_sweep.{name}" for name in ("run", "trial", "digest", "status", "reason", "best_epoch")
)
MOST_METRICS = 1000  # in one request, MLflow's own limit
LONGEST_PARAMETER = 6000  # characters, MLflow's own limit
NOT_IN_NAMES = re.compile(r"[^\w\-. :/]")  # MLflow takes letters, digits and these


def write_experiment(run: RecordedRun, path: Path, progress: Progress) -> Exported:
    """Write every recorded trial into the experiment of the run's name in the file `path`, which may hold others.

    Epochs that are there stay, and those that came since are added.

    Raises RunError where the file has an experiment of that name of another run.
    """
    mlflow = imported("mlflow")
    levels = {name: logging.getLogger(name).level for name in ("alembic", "mlflow")}
    for name in levels:
        logging.getLogger(name).setLevel(logging.WARNING)  # dozens of lines about tables
    try:
        client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{path.absolute()}")
        record = run.record
        experiment = _experiment(client, record, path)
        there = {each.data.tags.get(TRIAL): each for each in _runs(client, experiment)}
        trials = list(histories(record))
        for done, trial in enumerate(trials, start=1):
            _write_trial(client, mlflow.entities, experiment, trial, there.get(str(trial.number)))
            progress("writing trials", done, len(trials))
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
    opened = f"mlflow ui --backend-store-uri sqlite:///{path}"
    return Exported((path,), f"experiment {record.name}: {len(trials):,} runs", opened)


def _experiment(client: Any, record: Run, path: Path) -> str:
    """The experiment's id."""
    mine = identity(record)
    found = client.get_experiment_by_name(record.name)
    if found is None:
        place = (path.absolute().parent / f"{path.stem}-artifacts").as_uri()
        tags = {RUN: mine, "fashion_sweep.data_fingerprint": record.manifest["data_fingerprint"]}
        return str(client.create_experiment(record.name, artifact_location=place, tags=tags))
    if found.tags.get(RUN) != mine:
        rule = f"holds an experiment {record.name!r} that is not of this run"
        raise RunError(Problem(str(path), rule, fix="Choose another --out"))
    return str(found.experiment_id)


def _runs(client: Any, experiment: str) -> Iterator[Any]:
    token = None
    while True:
        page = client.search_runs([experiment], max_results=1000, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _write_trial(client: Any, entities: Any, experiment: str, trial: TrialHistory, there: Any) -> None:
    if there is not None and there.data.tags.get(DIGEST) == trial.digest:
        return
    if there is None:
        began = None if trial.began is None else round(trial.began * 1000)
        tags = {TRIAL: str(trial.number)}
        there = client.create_run(experiment, start_time=began, run_name=trial.title, tags=tags)
    key = there.info.run_id
    known = {each.step for each in client.get_metric_history(key, "val_loss")}
    new = [report for report in trial.reports if report.epoch not in known]
    for metrics in _requests(entities, new, _best_so_far(trial.reports)):
        client.log_batch(key, metrics=metrics)
    parameters = [entities.Param(name, _text(value)) for name, value in trial.sampled.items() if value is not None]
    client.log_batch(key, params=parameters)
    client.set_tag(key, STATUS, trial.status)
    client.set_tag(key, REASON, trial.reason)
    client.set_tag(key, "fashion_sweep.config", json.dumps(trial.config))
    if trial.best is not None:
        client.set_tag(key, BEST_EPOCH, str(trial.best.epoch))
    if trial.ended is not None or trial.status == "failed":
        ended = None if trial.ended is None else round(trial.ended * 1000)
        client.set_terminated(key, STATUSES[trial.status], ended)
    else:
        client.update_run(key, status=STATUSES[trial.status])
    client.set_tag(key, DIGEST, trial.digest)  # last: a trial with this digest is there as a whole


def _best_so_far(reports: Sequence[EpochReport]) -> set[int]:
    """The epochs at which val_loss was lower than at any before."""
    lowest, epochs = float("inf"), set()
    for report in reports:
        loss = report.metrics.get("val_loss", float("nan"))
        if loss < lowest:
            lowest = loss
            epochs.add(report.epoch)
    return epochs


def _requests(entities: Any, reports: Sequence[EpochReport], best: set[int]) -> Iterator[list[Any]]:
    """The metrics of the reports, in lists that MLflow takes at once. An epoch is never divided between two, since the
    presence of its val_loss says that all of it is there."""
    gathered: list[Any] = []
    for report in reports:
        moment = round(datetime.fromisoformat(report.time).timestamp() * 1000) if report.time else 0
        values = {**report.metrics, "seconds": report.seconds}
        if report.epoch in best:
            values |= {f"{BEST}{name}": value for name, value in report.metrics.items()}
        mine = [
            entities.Metric(NOT_IN_NAMES.sub("_", name), value, moment, report.epoch) for name, value in values.items()
        ]
        if len(gathered) + len(mine) > MOST_METRICS:
            yield gathered
            gathered = []
        gathered += mine
    if gathered:
        yield gathered


def _text(value: Any) -> str:
    return (value if isinstance(value, str) else json.dumps(value))[:LONGEST_PARAMETER]
