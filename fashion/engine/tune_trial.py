"""One trial under Ray: the training loop within Ray Train, and how its reports reach Tune.

A trial of one worker runs in Train's local mode inside a warm, reused Tune actor. A trial of several workers runs on a
warm Train worker group that its Tune slot keeps (`worker_group.py`). Both iterate the same generator.
"""

from __future__ import annotations

import os
import platform
from contextlib import closing
from typing import Any

import ray
import torch
from ray import tune
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from fashion.cluster.session import leaving
from fashion.config.trial import read_config
from fashion.data.batches import Worker
from fashion.engine.messages import Began, Blocked, Failed, Moving, TrialMessage, message_of, to_result
from fashion.engine.worker_group import run_in_slot
from fashion.errors import Leaving, Superseded, refusal
from fashion.training.task import SharedInputs, Task
from fashion.training.worker import describe_failure, trial_reports


def run_trial(config: dict[str, Any], shared: SharedInputs) -> None:
    """The function that Tune runs: `config` holds "number" and "config" (the trial's configuration as JSON)."""
    task = shared.task(config["number"], read_config(config["config"]))
    if _leaving():
        _move_on()
    try:
        if shared.workers > 1:
            run_in_slot(task, shared, send=_send)
        else:
            _send(Began(f"{platform.node()} {os.getpid()}", platform.node()))
            # Local mode: Train's loop in this process. Its own results are not used, so its folder is not either.
            trainer = TorchTrainer(
                lambda: _train_here(task, shared.gpus_per_worker),
                scaling_config=ScalingConfig(num_workers=0, use_gpu=shared.gpus_per_worker > 0),
                run_config=RunConfig(name="local", storage_path=str(shared.scratch / "train")),
            )
            trainer.fit()
    except Leaving:
        _move_on()
    except Superseded:
        # Nobody listens any more: the trial goes on elsewhere.
        os._exit(1)
    except Exception as error:
        # A disk that is full is full for every trial: the sweep stops, and this trial can go on from its last
        # checkpoint.
        reason = refusal(error)
        # A configuration that fails would fail again: no retry, the sweep goes on. (A process that dies is retried.)
        _send(Blocked(reason) if reason else Failed(describe_failure(task, error)))


def _train_here(task: Task, share: float) -> None:
    device = torch.device("cuda" if share else "cpu")
    if 0 < share < 1:
        # A trial that outgrows its share fails alone, and not its neighbours on the GPU with it.
        torch.cuda.set_per_process_memory_fraction(share)
    # Closed at once where Tune stops the trial, or its files would still be uploaded.
    with closing(trial_reports(task, Worker(device=device), _leaving)) as reports:
        for told in reports:
            _send(message_of(told))


def _send(message: TrialMessage) -> None:
    """Hand a message to the driver; returns when the driver has acted on it. A stopped trial ends here (SystemExit)."""
    tune.report(to_result(message))


def _leaving() -> bool:
    """Whether this node will be taken away."""
    return leaving([ray.get_runtime_context().get_node_id()])


def _move_on() -> None:
    """Say so and end this process, so that Tune starts the trial on another node."""
    _send(Moving())
    os._exit(0)
