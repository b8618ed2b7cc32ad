"""One trial under Ray: the loop of `train.fit` within Ray Train, and the way of its reports to Tune.

A trial of one worker runs in Train's local mode inside a warm, reused Tune actor; a trial of several runs on a
warm Train worker group that its Tune slot keeps (`slot.py`). Both iterate the same generator.
"""

from __future__ import annotations

import json
import os
from contextlib import closing
from typing import Any

import ray
import torch
from ray import tune
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from fashion.cluster.session import leaving
from fashion.config import read_config
from fashion.engine.worker_group import run_in_slot
from fashion.errors import Leaving, Superseded, refusal
from fashion.training.events import Heartbeat, Note, TrialEvent
from fashion.training.feed import Worker
from fashion.training.worker import SharedInputs, Task, describe_failure, trial_reports


def run_trial(config: dict[str, Any], job: SharedInputs) -> None:
    """The function that Tune runs: `config` holds "number" and "config" (the trial's configuration as JSON)."""
    task = job.task(config["number"], read_config(config["config"]))
    if _leaving():
        _move_on()
    try:
        if job.workers > 1:
            run_in_slot(task, job, send=_report)
        else:
            # Local mode: Train's loop in this process. Its own results are not used, so its folder is not either.
            trainer = TorchTrainer(
                lambda: _train_here(task, job.gpus_per_worker),
                scaling_config=ScalingConfig(num_workers=0, use_gpu=job.gpus_per_worker > 0),
                run_config=RunConfig(name="local", storage_path=str(job.scratch / "train")),
            )
            trainer.fit()
    except Leaving:
        _move_on()
    except Superseded:
        # Nobody listens any more: the trial goes on elsewhere.
        os._exit(1)
    except Exception as error:
        # A disk that is full is full for every trial: the sweep stops, and this one goes on from its last checkpoint.
        reason = refusal(error)
        # A configuration that fails would fail again: no retry, the sweep goes on. (A process that dies is retried.)
        tune.report({"blocked": reason} if reason else {"failed": describe_failure(task, error)})


def _train_here(task: Task, share: float) -> None:
    device = torch.device("cuda" if share else "cpu")
    if 0 < share < 1:
        # A trial that outgrows its share fails alone, and not its neighbours on the GPU with it.
        torch.cuda.set_per_process_memory_fraction(share)
    # Closed at once where Tune stops the trial, or its files would still be uploaded.
    with closing(trial_reports(task, Worker(device=device), _leaving)) as reports:
        for report in reports:
            _report(report)


def _report(report: TrialEvent) -> None:
    """Hand a report, or a note, to the driver; returns when it is recorded. A stopped trial ends here (SystemExit)."""
    if isinstance(report, Note):
        tune.report({"note": report.text})
    elif isinstance(report, Heartbeat):
        tune.report({"alive": True})
    else:
        tune.report({"report": json.dumps(report.to_json())})


def _leaving() -> bool:
    """Whether this node will be taken away."""
    return leaving([ray.get_runtime_context().get_node_id()])


def _move_on() -> None:
    """Say so and end this process, so that Tune starts the trial on another node."""
    tune.report({"moves": True})
    os._exit(0)
