"""A Ray cluster that starts, or is joined, while this process does something else.

Ray's processes take seconds to come up, and most of that is waiting. A sweep has enough to do in the meantime:
resolving weights, building caches, loading Tune. So have the processes that Ray then starts for trials: each loads
torch, which takes seconds, before a trial is handed out.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Self

from fashion.cluster.growth import workers_that_fit
from fashion.cluster.interrupts import deferred
from fashion.cluster.local.start import Warm, replaced
from fashion.cluster.session import SECRETS, cluster, coming
from fashion.model.backbones import row
from fashion.spec.sweep_spec import SweepSpec
from fashion.spec.trials.possible import every, together

TRIAL = "fashion.engine.tune_trial"
AT_THE_END = ("matplotlib.figure", "scipy.special")  # with which the end of a command draws and computes


class ClusterAhead:
    """`with ClusterAhead() as ahead: ahead.begin(...); ...; with ahead.take(...): ...`

    What has begun is ended with the outer block, whether it was used or not. From `begin` on, `sys.stdout` leads
    nowhere, as it does within `fashion.cluster.session.cluster`.
    """

    def __init__(self) -> None:
        self._begun, self._coming = False, ""
        self._there = threading.Event()
        self._left = threading.Event()
        self._entered: AbstractContextManager[None] | None = None
        self._error: BaseException | None = None
        self._notes: list[str] = []

    def begin(self, address: str | None, warm: Warm | None) -> None:
        """Start Ray, or join the cluster at `address`, in a thread of its own. warm: as `cluster` takes it."""
        self._begun, self._coming = True, coming(address)
        threading.Thread(target=self._enter, args=(address, warm), name="cluster-ahead", daemon=True).start()

    def wait(self, waiting: Callable[[str], None]) -> None:
        """Wait until what has begun is there, or has failed. Nothing of Ray's may be imported before: two threads that
        import modules which need each other see them half made.

        waiting: is told what is waited for, and with an empty text that it is no longer.
        """
        if self._begun and not self._there.is_set():
            waiting(self._coming)
            self._there.wait()
            waiting("")

    def take(self, note: Callable[[str], None]) -> AbstractContextManager[None] | None:
        """The cluster, to be left by whoever takes it; None where nothing has begun. `note` is told what it would have
        been told by `fashion.cluster.session.cluster`.

        Raises what that raises.
        """
        if self._begun:
            self._there.wait()
        for text in self._notes:
            note(text)
        self._notes.clear()
        error, self._error = self._error, None
        if error is not None:
            raise error
        entered, self._entered = self._entered, None
        return None if entered is None else Taken(entered, self._left)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with deferred():
            if self._begun:
                self._there.wait()
            entered, self._entered = self._entered, None
            if entered is not None:
                entered.__exit__(None, None, None)
            self._left.set()

    def _enter(self, address: str | None, warm: Warm | None) -> None:
        context = cluster(address, self._notes.append, lambda text: None, warm)
        try:
            context.__enter__()
            self._entered = context
        except BaseException as error:  # raised in the thread that takes it
            self._error = error
        finally:
            self._there.set()
        # Linux ends Ray's processes, which ask for it, when the thread ends that started them.
        self._left.wait()


class Taken(AbstractContextManager[None]):
    """A context that was entered before: only its end is left, which `left` tells."""

    def __init__(self, entered: AbstractContextManager[None], left: threading.Event) -> None:
        self._entered, self._left = entered, left

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        try:
            return self._entered.__exit__(kind, error, trace)
        finally:
            self._left.set()


def load_meanwhile() -> None:
    """Load what the end of the command needs, while this process waits for the first trial to begin."""

    def load() -> None:
        for module in AT_THE_END:
            importlib.import_module(module)

    threading.Thread(target=load, name="load-meanwhile", daemon=True).start()


def needed(spec: SweepSpec, left: int, cpus: int, gpus: int) -> Warm | None:
    """What the first trials of a sweep need that has so many `left`, on this machine of so many CPUs and GPUs. A
    process that is not among them starts when its trial does. None for trials of several workers, whose processes Train
    starts."""
    resources = spec.resources
    if resources.workers > 1:
        return None
    share = min(gpus, 1) if resources.gpus_per_worker == "auto" else resources.gpus_per_worker
    needs = {"CPU": float(resources.cpus_per_worker), **({"GPU": float(share)} if share else {})}
    slots = workers_that_fit([{"CPU": float(cpus), "GPU": float(gpus)}], needs)
    if resources.concurrent_trials != "auto":
        slots = min(slots, resources.concurrent_trials)
    names = {str(each["model.backbone"]) for each in together(spec, ("model.backbone",), every)}
    sources = {single.source for name in names for single in row(name).singles}
    return Warm(min(slots, left), (TRIAL, *sorted(sources - {"own"})))


@contextmanager
def trial_environment(joined: str | None) -> Iterator[None]:
    """Inside, Tune hands this to its actors as a runtime environment, beside what they inherit.

    joined: the address of a cluster that ran before. Then what Tune would, without the keys of AWS, which Ray's agent
    would write to its log: the nodes of a cluster have keys of their own. On this machine nothing, since actors inherit
    the command's variables; and only so does Ray give them a process that is there already.
    """
    from ray.tune.execution import class_cache

    handed_on = class_cache.ENV_VARS_TO_PROPAGATE - set(SECRETS) if joined else set[str]()
    always = class_cache.DEFAULT_ENV_VARS if joined else {}
    with replaced((class_cache, "ENV_VARS_TO_PROPAGATE", handed_on), (class_cache, "DEFAULT_ENV_VARS", always)):
        yield
