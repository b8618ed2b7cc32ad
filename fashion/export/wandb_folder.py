"""A run as offline runs of Weights & Biases, one per trial in one group: `wandb sync` sends them to a server."""

from __future__ import annotations

import json
import os
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

from fashion.api.recorded_run import RecordedRun
from fashion.export.histories import BEST, TrialHistory, histories, identity
from fashion.export.targets import Exported, Progress, imported
from fashion.files import parse, write_atomic

PROJECT = "fashion-sweep"
MARK = "fashion-sweep.json"  # in the folder of a trial that is there as a whole


def write_runs(run: RecordedRun, folder: Path, progress: Progress) -> Exported:
    """Write an offline run for every recorded trial below `folder`/wandb. Those that are there as they are recorded
    stay; one of which the record has more to say by now is written anew, under the same id."""
    record = run.record
    mine = identity(record)
    trials = list(histories(record))
    for done, trial in enumerate(trials, start=1):
        key = f"{mine}-{trial.number:04d}"
        there = list((folder / "wandb").glob(f"offline-run-*-{key}"))
        if not any(_digest(each) == trial.digest for each in there):
            for each in there:
                shutil.rmtree(each)
            _write_trial(trial, record.name, key, folder)
        progress("writing trials", done, len(trials))
    opened = f"wandb sync {folder}/wandb/offline-run-*-{mine}-*"
    return Exported((folder / "wandb",), f"group {record.name}: {len(trials):,} offline runs", opened)


def _digest(folder: Path) -> str:
    """Of what was written into the folder of a run; empty where that was not finished."""
    try:
        return str(parse((folder / MARK).read_bytes())["digest"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _write_trial(trial: TrialHistory, group: str, key: str, folder: Path) -> None:
    wandb = imported("wandb")
    # Nothing of this machine, nor of the folder in which the command was typed, belongs into a record of the past.
    settings = wandb.Settings(
        console="off", silent=True, disable_git=True, disable_code=True, disable_job_creation=True,
        x_disable_stats=True, x_disable_meta=True,
    )  # fmt: skip
    opened = wandb.init(
        project=os.environ.get("WANDB_PROJECT", PROJECT), group=group, job_type="trial", id=key, name=trial.title,
        config={**trial.config, "sampled": trial.sampled}, dir=str(folder.absolute()), mode="offline",
        settings=settings, reinit="finish_previous",
    )  # fmt: skip
    try:
        for report in trial.reports:
            opened.log({**report.metrics, "seconds": report.seconds, **_time(report.time)}, step=report.epoch)
        opened.summary.update(_summary(trial))
        place = Path(opened.settings.sync_dir)
    finally:
        opened.finish(exit_code=int(trial.status == "failed"))
    write_atomic(place / MARK, json.dumps({"trial": trial.number, "digest": trial.digest}).encode() + b"\n")


def _time(time: str) -> dict[str, float]:
    """When the epoch ended, in place of the moment of the export."""
    return {"_timestamp": datetime.fromisoformat(time).timestamp()} if time else {}


def _summary(trial: TrialHistory) -> dict[str, Any]:
    best = trial.best
    metrics = {f"{BEST}{name}": value for name, value in best.metrics.items()} if best else {}
    return {
        "trial": trial.number,
        "status": trial.status,
        "reason": trial.reason,
        "best_epoch": best.epoch if best else None,
        **metrics,
    }
