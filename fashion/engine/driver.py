"""The driver: start, resume and extend a sweep, which are one path.

Read the record, feed the scheduler with it, hand out what is not final, and write down what happens.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial

from ray import tune
from ray.tune import FailureConfig, PlacementGroupFactory, RunConfig, TuneConfig, Tuner

from fashion.cluster.interrupts import deferred, first_asks
from fashion.cluster.local.spare_cores import say_last
from fashion.cluster.placement import Placement, Room, find_room
from fashion.cluster.session import RayDied, cluster, joins
from fashion.data.layout import read_unchanged
from fashion.display.live import Display
from fashion.display.tensorboard import EventFiles
from fashion.engine.ahead import ClusterAhead, load_meanwhile, trial_environment
from fashion.engine.epoch_timeout import EpochTimeout
from fashion.engine.trainable import run_trial
from fashion.engine.tune_hooks import AbortStopper, NumberSearcher, RecordScheduler, SweepBlocked
from fashion.errors import BlockedError
from fashion.files import remove_tree, require_own
from fashion.record import excerpt
from fashion.record.lock import RunLock
from fashion.record.run import Run
from fashion.record.trial_files import EVENTS
from fashion.schedulers.registry import make_scheduler
from fashion.spec.sweep_spec import SweepSpec
from fashion.storage.record_upload import Mirror
from fashion.storage.working_copy import Held
from fashion.sweep.observers import IntoBucket, Observer, OnTensorBoard
from fashion.sweep.outcome import SweepOutcome, outcome_of
from fashion.sweep.prepare import Prepared
from fashion.sweep.recorder import Recorder
from fashion.sweep.reuse import key, trained_elsewhere
from fashion.sweep.search import make_source
from fashion.training.task import SCRATCH, SharedInputs, code_here

# The slot of a trial of several workers only passes reports on. Zero resources are refused by Ray, and a sliver of a
# CPU would leave too little for the workers of a trial that takes the whole machine, so it takes a sliver of the head
# node.
SLOT = {"node:__internal_head__": 0.001}

# How often one command starts Ray again after Ray's own processes on this machine died.
RAY_RESTARTS = 3


def run_sweep(
    spec: SweepSpec, prepared: Prepared, run: Run, display: Display, address: str | None = None, fresh: bool = False,
    bucket: Held | None = None, ahead: ClusterAhead | None = None,
) -> SweepOutcome:  # fmt: skip
    """Run every trial that the record does not show as final. Unless `fresh`, trials that a sweep beside this one has
    already trained are taken from there. bucket: where the run is kept; None when it is kept in its folder. ahead: the
    cluster, where its start has begun already.

    The first Ctrl-C ends the sweep cleanly: every report that was made is on disk, and running trials keep their last
    checkpoint. A second one abandons what is still on its way into the bucket; the outcome says what the bucket lacks.

    Raises:
        RunError: another process drives this run.
        BlockedError: no trial can go on for now: the disk is full, the data set has changed, or the bucket is away.
        ResourcesError: the cluster can never offer what a trial needs.
    """
    mirror = Mirror(bucket, display.note) if bucket is not None else None
    with RunLock(run.path), EventFiles(run) as events, mirror or nullcontext():
        for written in ("trials", EVENTS):
            require_own(run.path / written, deep=True)
        run.refresh()
        observers: list[Observer] = [OnTensorBoard(events)]
        observers += [IntoBucket(mirror)] if mirror is not None else []
        observers += [display]  # last, since what it shows must have happened everywhere
        settled = mirror.settled if mirror is not None else lambda: True
        recorder = Recorder(run, make_scheduler(spec.scheduler), spec.total_trials, observers, settled)
        recorder.catch_up()
        if mirror is not None:
            mirror.start(recorder.stop, lambda number: EventFiles(run).close(number))
        try:
            if not fresh and bucket is None:
                take_trained(spec, run, recorder)
            for restart in range(1 + RAY_RESTARTS):
                if not run.unfinished(spec.total_trials) or recorder.abort or recorder.blocked:
                    break
                try:
                    _start_and_tune(spec, prepared, run, recorder, address, bucket, ahead)
                    break
                except RayDied as error:
                    display.note(f"Ray's {error} died")
                    if restart == RAY_RESTARTS:
                        recorder.blocked = f"Ray's own processes died {restart + 1} times. The same command goes on."
        except SweepBlocked:
            pass  # the recorder knows the reason
        except KeyboardInterrupt:
            pass  # the unfinished trials tell
        run.refresh()
        run.close()
        if len(run.history) > excerpt.WORTH and not recorder.blocked:
            excerpt.save(run)
        lacking = mirror.flush() if mirror is not None else ""
    if recorder.blocked:
        raise BlockedError(f"{recorder.blocked} ({lacking})" if lacking else recorder.blocked)
    return outcome_of(run, spec.total_trials, recorder.abort, lacking)


def take_trained(spec: SweepSpec, run: Run, recorder: Recorder) -> None:
    """Take trials that a sweep beside this one has trained. Not under optuna, whose configurations are not known
    beforehand."""
    waiting = [number for number in run.unfinished(spec.total_trials) if number not in run.trials]
    waiting += [number for number, trial in run.trials.items() if trial.origin is not None and not trial.final]
    if spec.search.adaptive or not waiting:
        return
    trained = trained_elsewhere(run)
    for number in sorted(waiting) if trained else ():
        config = spec.trial(number).model_dump(mode="json")
        if key(config) in trained:
            recorder.take(number, config, trained[key(config)])


def _start_and_tune(
    spec: SweepSpec, prepared: Prepared, run: Run, recorder: Recorder, address: str | None, bucket: Held | None,
    ahead: ClusterAhead | None,
) -> None:  # fmt: skip
    begun = ahead.take(recorder.note) if ahead is not None else None
    # The folder outlives Ray, whose processes write there until they end.
    with _scratch(run), begun or cluster(address, recorder.note, recorder.waiting), trial_environment(joins(address)):
        placement = find_room(spec.resources, recorder.note)
        _tune(spec, prepared, run, recorder, run.unfinished(spec.total_trials), placement, bucket)


def _tune(
    spec: SweepSpec, prepared: Prepared, run: Run, recorder: Recorder, numbers: list[int], placement: Placement,
    bucket: Held | None,
) -> None:  # fmt: skip
    resources, fingerprint = spec.resources, run.manifest["data_fingerprint"]
    shared = SharedInputs(
        run.path.absolute(), prepared.source, fingerprint, prepared.cache_dir, dict(prepared.weights),
        placement.workers,
        placement.cpus_per_worker, placement.gpus_per_worker, resources.max_failures, resources.max_preemptions,
        bucket.address if bucket is not None else None,
        code_here(),
        prepared.teachers,
        resources.elastic,
    )  # fmt: skip
    if placement.workers > 1:
        bundle = SLOT
    else:
        bundle = {"CPU": float(placement.cpus_per_worker), "GPU": placement.gpus_per_worker}
    trainable = tune.with_resources(
        tune.with_parameters(run_trial, shared=shared), PlacementGroupFactory([{k: v for k, v in bundle.items() if v}])
    )
    source = make_source(spec, run)
    scheduler = RecordScheduler(recorder, source, resources.max_failures, resources.max_preemptions)
    room = Room(spec.resources, placement, recorder.note)
    with first_asks() as interrupted:
        tuner = Tuner(
            trainable,
            tune_config=TuneConfig(
                search_alg=NumberSearcher(
                    numbers,
                    source,
                    recorder,
                    room,
                    lambda: read_unchanged(
                        prepared.root, fingerprint, prepared.follow_links, prepared.on_error, prepared.reading
                    ),
                    settle=spec.search.adaptive,
                    last=partial(say_last, str(shared.run)) if resources.elastic else None,
                ),
                scheduler=scheduler,
                num_samples=len(numbers),
                reuse_actors=True,
                trial_dirname_creator=lambda trial: f"{trial.config['number']:04d}-{trial.trial_id}",
            ),
            run_config=RunConfig(
                name=spec.name,
                storage_path=str(shared.scratch / "tune"),
                stop=AbortStopper(recorder, interrupted.is_set),
                failure_config=FailureConfig(max_failures=-1),  # the scheduler counts
                callbacks=[EpochTimeout(resources.epoch_timeout, scheduler)] if resources.epoch_timeout else None,
                verbose=0,
            ),
        )
        load_meanwhile()
        try:
            tuner.fit()
        except Exception as error:
            if not interrupted.is_set():
                raise
            # A signal to all processes of a session ends Ray's, too, and Tune may notice that first.
            raise KeyboardInterrupt from error


@contextmanager
def _scratch(run: Run) -> Iterator[None]:
    """A folder for Ray's own files, emptied of what a killed driver left. Only the holder of the run's lock may do
    this."""
    folder = run.path / SCRATCH
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield
    finally:
        with deferred():
            remove_tree(folder)
