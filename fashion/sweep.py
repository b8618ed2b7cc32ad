"""The driver: start, resume and extend a sweep, which are one path.

Read the record, feed the scheduler with it, hand out what is not final, and write down what happens.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from types import FrameType
from typing import Any

import ray
from ray import tune
from ray.tune import FailureConfig, PlacementGroupFactory, RunConfig, TuneConfig, Tuner

from fashion import excerpt
from fashion.data.layout import read_unchanged
from fashion.display import Display
from fashion.engine import AbortStopper, EpochTimeout, NumberSearcher, RayDied, RecordScheduler
from fashion.errors import BlockedError, ResourcesError
from fashion.journal import RunLock
from fashion.prepare import Prepared
from fashion.recorder import Recorder
from fashion.reuse import key, trained_elsewhere
from fashion.run import Run
from fashion.schedulers import make_scheduler
from fashion.search import make_source
from fashion.settings import ResourcesConfig
from fashion.spec import SweepSpec
from fashion.task import SCRATCH, Job
from fashion.tensorboard import EventFiles
from fashion.trial import run_trial

# The slot of a trial of several workers only passes reports on. Zero resources are refused by Ray, and a sliver of a CPU
# would leave too little for the workers of a trial that takes the whole machine, so it takes a sliver of the head node.
SLOT = {"node:__internal_head__": 0.001}

ENVIRONMENT = {
    # The record is the truth: Tune's own result files would be a second one, at half the speed.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Its snapshots too: every 10 s of all trials there ever were, which grows with them.
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
    # Here, Ctrl-C is handled by run_sweep.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # The record has the reason, the terminal is the display's.
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    # A stopped trial may still be closing its generator; the default of 2 s would fail the next trial of the slot.
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "120",
    # Paths in specs are relative to where the command was typed.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}

# Times that Ray is started again by one command after its own processes on this machine died.
RAY_RESTARTS = 3

# Loggers whose errors are the record's business: a dead process, a trial that did not end.
QUIET = ("ray.tune", "ray.train")


@dataclass(frozen=True)
class Placement:
    """What a trial takes and how many fit. gpus_per_worker is a number here, never "auto"."""

    workers: int
    cpus_per_worker: int
    gpus_per_worker: float
    concurrent: int


def run_sweep(
    spec: SweepSpec, prepared: Prepared, run: Run, display: Display, address: str | None = None, fresh: bool = False
) -> str:
    """Run every trial that the record does not show as final. Unless `fresh`, those that a sweep beside this one has
    trained already are taken from there.

    Returns why it ended early, empty when all trials are final. The first Ctrl-C ends it cleanly ("interrupted"):
    every report that was made is on disk, running trials keep their last checkpoint.

    Raises:
        RunError: another process drives this run.
        BlockedError: no trial can go on for now: the disk is full, or the data set has changed.
        ResourcesError: the cluster can never offer what a trial needs.
    """
    with RunLock(run.path), EventFiles(run) as events:
        run.refresh()
        recorder = Recorder(run, make_scheduler(spec.scheduler), display, events, spec.total_trials)
        try:
            if not fresh:
                take_trained(spec, run, recorder)
            for restart in range(1 + RAY_RESTARTS):
                if not run.unfinished(spec.total_trials) or recorder.abort:
                    break
                try:
                    _start_and_tune(spec, prepared, run, recorder, address)
                    break
                except RayDied as error:
                    display.note(f"Ray's {error} died")
                    if restart == RAY_RESTARTS:
                        recorder.blocked = f"Ray's own processes died {restart + 1} times. The same command goes on."
        except KeyboardInterrupt:
            pass  # told by what is unfinished
        run.refresh()
        run.close()
        if len(run.history) > excerpt.WORTH and not recorder.blocked:
            excerpt.save(run)
    if recorder.blocked:
        raise BlockedError(recorder.blocked)
    if recorder.abort:
        return recorder.abort
    return "interrupted" if run.unfinished(spec.total_trials) else ""


def take_trained(spec: SweepSpec, run: Run, recorder: Recorder) -> None:
    """Take what is trained already. Not under optuna, whose configurations are not known beforehand."""
    waiting = [number for number in run.unfinished(spec.total_trials) if number not in run.trials]
    waiting += [number for number, trial in run.trials.items() if trial.origin is not None and not trial.final]
    if spec.search.method == "optuna" or not waiting:
        return
    trained = trained_elsewhere(run)
    for number in sorted(waiting) if trained else ():
        config = spec.trial(number).model_dump(mode="json")
        if key(config) in trained:
            recorder.take(number, config, trained[key(config)])


def _start_and_tune(spec: SweepSpec, prepared: Prepared, run: Run, recorder: Recorder, address: str | None) -> None:
    display = recorder.display
    # The folder outlives Ray, whose processes write there until they end.
    with _scratch(run), cluster(address, display.note):
        placement = place(spec.resources, ray.nodes())
        asked = spec.resources.concurrent_trials
        if asked != "auto" and asked > placement.concurrent:
            display.note(f"resources.concurrent_trials: {asked} asked, {placement.concurrent} fit at once")
        _tune(spec, prepared, run, recorder, run.unfinished(spec.total_trials), placement)


def _tune(
    spec: SweepSpec, prepared: Prepared, run: Run, recorder: Recorder, numbers: list[int], placement: Placement
) -> None:
    resources, fingerprint = spec.resources, run.manifest["data_fingerprint"]
    job = Job(
        run.path.absolute(), prepared.root, fingerprint, prepared.cache_dir, dict(prepared.weights), placement.workers,
        placement.cpus_per_worker, placement.gpus_per_worker, resources.max_failures, resources.max_preemptions,
    )  # fmt: skip
    if placement.workers > 1:
        bundle = SLOT
    else:
        bundle = {"CPU": float(placement.cpus_per_worker), "GPU": placement.gpus_per_worker}
    trainable = tune.with_resources(
        tune.with_parameters(run_trial, job=job), PlacementGroupFactory([{k: v for k, v in bundle.items() if v}])
    )
    source = make_source(spec, run)
    scheduler = RecordScheduler(recorder, source, resources.max_failures, resources.max_preemptions)
    concurrent = min(placement.concurrent, len(numbers))
    with _first_interrupt_asks() as interrupted:
        tuner = Tuner(
            trainable,
            tune_config=TuneConfig(
                search_alg=NumberSearcher(
                    iter(numbers), source, recorder, lambda: read_unchanged(prepared.root, fingerprint)
                ),
                scheduler=scheduler,
                num_samples=len(numbers),
                max_concurrent_trials=concurrent,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: f"{trial.config['number']:04d}-{trial.trial_id}",
            ),
            run_config=RunConfig(
                name=spec.name,
                storage_path=str(job.scratch / "tune"),
                stop=AbortStopper(recorder, interrupted.is_set),
                failure_config=FailureConfig(max_failures=-1),  # the scheduler counts
                callbacks=[EpochTimeout(resources.epoch_timeout, scheduler)] if resources.epoch_timeout else None,
                verbose=0,
            ),
        )
        tuner.fit()


def place(resources: ResourcesConfig, nodes: list[dict[str, Any]]) -> Placement:
    """Fit trials onto the cluster's nodes (`ray.nodes()`); a worker never spans two.

    Raises:
        ResourcesError: not even one trial fits.
    """
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    gpus = resources.gpus_per_worker
    if gpus == "auto":
        gpus = 1.0 if any(node.get("GPU", 0) >= 1 for node in alive) else 0.0
    needs = {"CPU": float(resources.cpus_per_worker), "GPU": float(gpus)}

    def workers_on(node: dict[str, float]) -> int:
        # A hair more than asked, so that four workers of 0.25 fit on a whole.
        return min(int(node.get(kind, 0.0) / need + 1e-9) for kind, need in needs.items() if need)

    room = sum(workers_on(node) for node in alive)
    if room < resources.workers:
        have = ", ".join(f"{sum(node.get(kind, 0.0) for node in alive):g} {kind}" for kind in needs)
        raise ResourcesError(
            f"resources: a trial needs {resources.workers} worker(s) of {resources.cpus_per_worker} CPU and {gpus:g} GPU; "
            f"got a cluster of {len(alive)} node(s) with {have}, room for {room} worker(s). "
            "Lower resources.workers, cpus_per_worker or gpus_per_worker (0 trains on CPU), or run on a larger cluster."
        )
    concurrent = room // resources.workers
    if resources.concurrent_trials != "auto":
        concurrent = min(concurrent, resources.concurrent_trials)
    return Placement(resources.workers, resources.cpus_per_worker, gpus, concurrent)


@contextmanager
def cluster(address: str | None, note: Callable[[str], None]) -> Iterator[None]:
    """Ray, started on this machine or joined at `address`, and left again. A polite kill (SIGTERM) is as Ctrl-C inside.

    Raises ResourcesError when no cluster answers at `address`.
    """
    os.environ.update({key: value for key, value in ENVIRONMENT.items() if key not in os.environ})
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # Ray's own variable names the cluster that a submitted job runs on.
    address = address or os.environ.get("RAY_ADDRESS")
    note(f"joining the Ray cluster at {address}" if address else "starting Ray on this machine")
    before = signal.signal(signal.SIGTERM, _as_interrupt)
    try:
        # Ray prints to stdout what its processes die of. Stdout is the display's, which holds its own reference.
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            if address:
                _join(address)
            else:
                # "local": without it Ray would join whatever `ray start` left running here.
                ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
            signal.signal(signal.SIGTERM, _as_interrupt)  # Ray has put its own in place
            yield
    finally:
        ray.shutdown()
        signal.signal(signal.SIGTERM, before)


def _join(address: str) -> None:
    try:
        # The workers of a cluster that runs already don't inherit this process's environment.
        ray.init(
            address=address, log_to_driver=False, logging_level=logging.ERROR,
            runtime_env={"env_vars": {key: os.environ[key] for key in ENVIRONMENT}},
        )  # fmt: skip
    except ConnectionError as error:
        raise ResourcesError(
            f"--address {address}: no Ray cluster answers there ({error}). Check the address and its token."
        ) from error


def _as_interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextmanager
def _first_interrupt_asks() -> Iterator[threading.Event]:
    """Set the event on the first Ctrl-C or SIGTERM, so that what is being recorded is recorded; a second one interrupts."""
    asked = threading.Event()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: FrameType | None) -> None:
        asked.set()
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in before:
        signal.signal(number, ask)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _scratch(run: Run) -> Iterator[None]:
    """A folder for Ray's own files; what a killed driver left there goes first. Only the lock's holder may do this."""
    folder = run.path / SCRATCH
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
