"""Run a sweep from its spec to its outcome: what the command, the Python API and scripts call."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Protocol

from fashion.cluster.interrupts import deferred, interruptible
from fashion.display.live import Display, Mode
from fashion.display.progress import Bars
from fashion.errors import ResourcesError
from fashion.files import usable_cpus, visible_gpus
from fashion.record.run import Run
from fashion.spec.sweep_spec import SweepSpec
from fashion.storage.working_copy import held
from fashion.sweep.extend import begun
from fashion.sweep.foresee import require_machine
from fashion.sweep.outcome import SweepOutcome


class ProgressBars(Protocol):
    """How far long work before the first trial is. `display.progress.Bars` is one."""

    def __call__(self, label: str, done: int, total: int) -> None: ...

    def close(self) -> None:
        """Leave the terminal to the sweep's own display. Called once or more."""


def to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def run_spec(
    spec: SweepSpec,
    *,
    address: str | None = None,
    fresh: bool = False,
    mode: Mode = "auto",
    recorded: bool = False,
    say: Callable[[str], None] = to_stderr,
    progress: ProgressBars | None = None,
) -> tuple[Run, SweepOutcome]:
    """Run a sweep, or go on with it where it stopped. Returns its run and what it came to.

    address: a Ray cluster to join; None starts Ray on this machine. fresh: train also what a sweep beside this one has
    already trained. mode: how the sweep is shown on stdout. recorded: first show the events that are recorded already
    (JSON lines only). say: is told what belongs to no trial, before the display begins. progress: shows long work
    before the first trial; by default bars on a terminal, and elsewhere a line now and then, on stderr.

    In the main thread, SIGTERM and SIGHUP do what Ctrl-C does: KeyboardInterrupt before the sweep has begun, and then
    an outcome that says so.

    Raises:
        DataError, SpecError, WeightsError: the data set or the weights can't be used; nothing was started.
        RunError: the run belongs to another spec, its data set has changed, or another process drives it.
        StorageError: the bucket can't be read or written.
        BlockedError: no trial can go on for now (`run_sweep`).
        ResourcesError: the cluster can never offer what a trial needs.
    """
    bars = progress if progress is not None else Bars()
    with interruptible(), ExitStack() as stack:
        stack.callback(bars.close)
        # First of all: a bucket that can't be used, or a sweep that is driven elsewhere, is told before Ray is loaded,
        # which takes seconds. That is also why modules are imported below. Torch is loaded only where something has to
        # be found out about a model (`KnownModels`).
        bucket = stack.enter_context(held(spec.storage, spec.name, say, partial(bars, "reading the record, MB")))
        before = begun(spec)
        spec = before.spec
        require_machine(spec.resources, address)

        with deferred():  # an interrupt within their imports can become any other exception
            from fashion.sweep.read_data import read_data

        found = read_data(spec, bars, before.trials)
        with deferred():
            from fashion.engine.ahead import ClusterAhead, needed

            # Ray starts meanwhile. All that can still be wrong is a user's own file of weights: then Ray waits, so that
            # a mistake is told at once.
            ahead, stdout = stack.enter_context(ClusterAhead()), sys.stdout
            if before.left and all(config.model.weights in ("none", "imagenet") for config in found.configs):
                ahead.begin(address, needed(spec, before.left, usable_cpus(), visible_gpus()))
            from fashion.sweep.prepare import discard, open_run, prepare

        prepared = prepare(spec, bars, before.trials, found, say)
        with deferred():
            import pandas  # noqa: F401  # half of what Tune takes to load, and no part of Ray: that may still start
        bars.close()
        run, resumed = open_run(spec, prepared, bucket)
        for finding in run.manifest["findings"]:
            say(f"Data: {finding['sentence']}.")
        if run.manifest["findings"]:
            say(f"`fashion-sweep data check {prepared.source}` tells which.")

        with Display(run, spec, mode=mode, stream=stdout) as display:
            if recorded:
                display.recorded()
            if resumed:
                left = len(run.unfinished(spec.total_trials))
                final = f"{spec.total_trials - left} of {spec.total_trials} trials are final, {left} to do"
                display.note(f"{run.location} is there: {final}")
            display.started()
            ahead.wait(display.waiting)
            with deferred():
                from fashion.engine.driver import run_sweep
            try:
                return run, run_sweep(spec, prepared, run, display, address, fresh, bucket, ahead)
            except ResourcesError:
                if not resumed and bucket is None:
                    discard(run)
                raise
