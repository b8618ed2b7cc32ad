"""One trial under Ray: the training loop within Ray Train, and how its reports reach Tune.

A trial of one worker runs in Train's local mode inside a warm, reused Tune actor. A trial of several workers runs on a
warm Train worker group that its Tune slot keeps (`worker_group.py`). Both iterate the same generator.
"""

from __future__ import annotations

import os
import platform
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import Any, Self

import ray
import torch
from ray import tune
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from fashion.cluster.local.spare_cores import threads_for
from fashion.cluster.session import leaving
from fashion.config.trial import read_config
from fashion.data.batches import Worker
from fashion.engine.messages import Began, Blocked, Failed, Moving, TrialMessage, message_of, to_result
from fashion.engine.worker_group import run_in_slot
from fashion.errors import Leaving, Superseded, refusal
from fashion.files import submitted
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
                lambda: _train_here(task, shared),
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


def _train_here(task: Task, shared: SharedInputs) -> None:
    share = shared.gpus_per_worker
    device = torch.device("cuda" if share else "cpu")
    if 0 < share < 1:
        # A trial that outgrows its share fails alone, and not its neighbours on the GPU with it.
        torch.cuda.set_per_process_memory_fraction(share)
    elastic = shared.elastic and not share
    threads = partial(threads_for, str(shared.run), task.threads) if elastic else None
    # Closed at once where Tune stops the trial, or its files would still be uploaded.
    with (
        Courier() as courier,
        closing(trial_reports(task, Worker(device=device), _leaving, threads, courier.require_wanted)) as reports,
    ):
        for told in reports:
            courier.send(message_of(told))


class Courier:
    """Hands messages to the driver, one after another, while the trial trains on: the driver's answer to a report takes
    milliseconds, and is nearly always that the trial goes on. A trial that is stopped ends a step later (SystemExit),
    before anything of its next epoch is saved."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="courier")
        self._sending: Future[None] | None = None

    def send(self, message: TrialMessage) -> None:
        """Returns when the message before this one was acted on."""
        self._settle()
        self._sending = submitted(self._thread, _send, message)

    def require_wanted(self) -> None:
        """Raise GeneratorExit, as closing the trial's generator does, if the trial was stopped."""
        if self._sending is not None and self._sending.done() and self._sending.exception() is not None:
            raise GeneratorExit

    def _settle(self) -> None:
        sending, self._sending = self._sending, None
        if sending is not None:
            sending.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Whatever has ended the trial, nothing else is sent before the last message was acted on. Raises what that
        raised."""
        with self._thread:
            self._settle()


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
