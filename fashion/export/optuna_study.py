"""A run as an Optuna study in an SQLite file, as Optuna itself and optuna-dashboard read it.

The values are the scheduler's metric, by which the trials were stopped. Of a trial that the scheduler stopped, which is
pruned in Optuna's words, the value is the last one reported, as Optuna has it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from fashion.api.recorded_run import RecordedRun
from fashion.errors import Problem, RunError, UserError
from fashion.export.histories import TrialHistory, histories, identity
from fashion.export.targets import Exported, Progress
from fashion.record.run import Run
from fashion.record.scheduler import settings_of
from fashion.record.trial import Status
from fashion.schedulers.base import Mode
from fashion.schedulers.metrics import METRICS
from fashion.spec.sweep_spec import SweepSpec
from fashion.sweep.search import optuna_distribution, recorded_dimensions

# Optuna has no word for a trial that was interrupted and will go on.
STATES: Mapping[Status, TrialState] = {
    "completed": TrialState.COMPLETE,
    "stopped": TrialState.PRUNED,
    "failed": TrialState.FAIL,
    "running": TrialState.RUNNING,
    "interrupted": TrialState.RUNNING,
}
DIRECTIONS: Mapping[Mode, StudyDirection] = {"min": StudyDirection.MINIMIZE, "max": StudyDirection.MAXIMIZE}
SQLITE = b"SQLite format 3\0"  # with which such a file begins
RUN, DIGEST = "fashion_sweep_run", "fashion_sweep_digest"


def write_study(run: RecordedRun, path: Path, progress: Progress) -> Exported:
    """Write every recorded trial into the study of the run's name in the file `path`, which may hold other studies.

    Trials that are there already as they are recorded stay. Optuna doesn't change a trial that has ended, so where the
    record has more to say of one, the study is written anew.

    Raises UserError where the file is none of Optuna's, or has a study of that name of another run.
    """
    record = run.record
    metric = settings_of(record).metric
    mode = METRICS[metric].mode
    spec = SweepSpec.from_json(record.manifest["spec"])
    if path.is_file() and path.stat().st_size and not path.open("rb").read(len(SQLITE)) == SQLITE:
        raise UserError(Problem(str(path), "must be an SQLite file, or none yet", fix="Choose another --out"))
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
        try:
            study = _study(storage, record, mode, path)
            wanted = [_frozen(each, spec, metric, mode) for each in histories(record)]
            there = [trial.user_attrs.get(DIGEST) for trial in study.get_trials(deepcopy=False)]
            if there != [trial.user_attrs[DIGEST] for trial in wanted[: len(there)]]:
                optuna.delete_study(study_name=record.name, storage=storage)
                study, there = _study(storage, record, mode, path), []
            for done, trial in enumerate(wanted[len(there) :], len(there) + 1):
                study.add_trial(trial)
                progress("writing trials", done, len(wanted))
        finally:
            storage.remove_session()
            storage.engine.dispose()
    except (SQLAlchemyError, RuntimeError) as error:  # RuntimeError: tables of another version of Optuna
        rule = "must be an Optuna storage that this version of Optuna can write"
        raise UserError(Problem(str(path), rule, str(error).splitlines()[0], "Choose another --out")) from error
    finally:
        optuna.logging.set_verbosity(verbosity)
    opened = f"optuna-dashboard sqlite:///{path}"
    return Exported((path,), f"study {record.name}: {len(wanted):,} trials, {metric} ({mode})", opened)


def _study(storage: optuna.storages.RDBStorage, record: Run, mode: Mode, path: Path) -> optuna.Study:
    study = optuna.create_study(
        storage=storage, study_name=record.name, direction=DIRECTIONS[mode], load_if_exists=True
    )
    mine = identity(record)
    owner = study.user_attrs.get(RUN)
    if owner is None and not study.get_trials(deepcopy=False):
        study.set_user_attr(RUN, mine)
        study.set_user_attr("data_fingerprint", record.manifest["data_fingerprint"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names([settings_of(record).metric])
    elif owner != mine:
        rule = f"holds a study {record.name!r} that is not of this run"
        raise RunError(Problem(str(path), rule, fix="Choose another --out"))
    return study


def _frozen(trial: TrialHistory, spec: SweepSpec, metric: str, mode: str) -> FrozenTrial:
    """The trial as Optuna keeps one. Its number is given by the study."""
    values = {report.epoch: report.metrics[metric] for report in trial.reports if metric in report.metrics}
    finite = [value for value in values.values() if math.isfinite(value)]
    state = STATES[trial.status]
    value = None
    if state == TrialState.COMPLETE and finite:
        value = min(finite) if mode == "min" else max(finite)
    elif state == TrialState.COMPLETE:
        state = TrialState.FAIL  # Optuna has no completed trial without a value
    elif state == TrialState.PRUNED and finite:
        value = finite[-1]
    # Where the ranges were edited since, a trial outside of them has its values among the attributes alone: a study
    # holds one space.
    found = recorded_dimensions(spec, trial.config, trial.number)
    return FrozenTrial(
        number=-1,
        trial_id=-1,
        state=state,
        value=value,
        datetime_start=_moment(trial.began),
        # Optuna wants an end of every trial that has ended; one that failed before its first report has no times.
        datetime_complete=(_moment(trial.ended) or datetime.fromtimestamp(0)) if state.is_finished() else None,
        params=dict(found.values) if found else {},
        distributions={name: optuna_distribution(each) for name, each in found.distributions.items()} if found else {},
        user_attrs=_attributes(trial),
        system_attrs={},
        intermediate_values=values,
    )


def _attributes(trial: TrialHistory) -> dict[str, Any]:
    """Number, title and reason, what was sampled, and the best epoch with its metrics."""
    best = trial.best
    return {
        DIGEST: trial.digest,
        "trial": trial.number,
        "title": trial.title,
        "status": trial.status,
        "reason": trial.reason,
        "config": trial.config,
        "seconds": math.fsum(report.seconds for report in trial.reports),
        "best_epoch": best.epoch if best else None,
        # JSON has no NaN, which a metric other than val_loss may be at the best epoch.
        **({name: value for name, value in best.metrics.items() if math.isfinite(value)} if best else {}),
    }


def _moment(seconds: float | None) -> datetime | None:
    """Local time without a zone, as Optuna keeps it."""
    return None if seconds is None else datetime.fromtimestamp(seconds)
