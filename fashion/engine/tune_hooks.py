"""Tune's hooks, each a few lines over the record: who is next, who goes on, when to give up.

Tune is an engine that may die at any moment. It is told trial numbers and decisions; it keeps nothing that must last.
"""

from __future__ import annotations

import functools
import json
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

import ray
import ray.cloudpickle
from ray import tune
from ray.exceptions import RayActorError
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from fashion.cluster.session import RayDied, dead_daemons
from fashion.engine.deaths import Deaths, machine_went
from fashion.engine.messages import Alive, Began, Blocked, Failed, Moving, Noted, Reported, from_result
from fashion.errors import BlockedError, first_line, refusal
from fashion.record.trial import EpochReport
from fashion.sweep.recorder import Recorder
from fashion.sweep.search import ConfigSource

# The data set is checked again when a trial is handed out, but not more often than once in this many seconds.
DATA_SECONDS = 10.0


class SweepBlocked(BaseException):
    """No trial can go on for now: raised inside a hook, it ends Tune at once. (No Exception, which Tune would take for
    a trial's own.) What waits to be recorded is reported again when the sweep goes on."""


def block(recorder: Recorder, reason: str) -> NoReturn:
    """Stop the sweep at once, for `reason`."""
    recorder.blocked = reason
    raise SweepBlocked(reason)


def _blocked_by_disk(method: Callable[..., Any]) -> Callable[..., Any]:
    """For hooks that record: what can't be put on disk must not be obeyed either, and the trial is not to blame."""

    @functools.wraps(method)
    def hook(self: Any, *arguments: Any, **named: Any) -> Any:
        try:
            return method(self, *arguments, **named)
        except OSError as error:
            reason = refusal(error, str(self.recorder.run.path))
            if not reason:
                raise
            block(self.recorder, reason)

    return hook


def _not_now(recorder: Recorder) -> None:
    """The answer when Tune asks for a trial too early. While no trial runs, Tune asks for nothing else, not even
    whether to stop: so a sweep that is blocked is ended here."""
    if recorder.blocked:
        block(recorder, recorder.blocked)


class NumberSearcher(Searcher):
    """Hands out trial numbers with their configurations while there is `room()` for more trials. Each is recorded
    before Tune sees it.

    check_data: raises BlockedError when the data set is not the one that the sweep started with. settle: configurations
    can't be computed again, so none is handed out before it has reached the place where the record is kept. last: is
    told, from when on no trial is left to begin, the names of the nodes of those that run, "" for one that has not come
    up yet.
    """

    def __init__(
        self,
        numbers: Iterable[int],
        source: ConfigSource,
        recorder: Recorder,
        room: Callable[[], int],
        check_data: Callable[[], object],
        settle: bool = False,
        last: Callable[[list[str]], None] | None = None,
    ) -> None:
        super().__init__()
        self.settle, self.unsettled = settle, list[int]()
        self.numbers, self.source, self.recorder, self.room = deque(numbers), source, recorder, room
        self.check_data, self.checked = check_data, time.monotonic()
        self.handed_out: dict[str, int] = {}  # Tune's id of a trial -> its number
        self.live: set[str] = set()
        self.last = last

    @_blocked_by_disk
    def suggest(self, trial_id: str) -> Any:
        # Not Tune's own limit, which stays what it was when the sweep began while nodes come and go.
        if len(self.live) >= self.room():
            return None
        if self.unsettled and not self.recorder.settled():
            return _not_now(self.recorder)
        if not (self.unsettled or self.numbers) or self.recorder.abort:
            return Searcher.FINISHED
        number = self.unsettled.pop() if self.unsettled else self.numbers.popleft()
        if time.monotonic() - self.checked >= DATA_SECONDS:
            try:
                self.check_data()
            except BlockedError as error:
                block(self.recorder, str(error))
            self.checked = time.monotonic()
        run = self.recorder.run
        if number not in run.trials:
            run.record_trial(number, self.source.config(number).model_dump(mode="json"))
            if self.settle and not self.recorder.settled():
                self.unsettled.append(number)
                return _not_now(self.recorder)
        self.handed_out[trial_id] = number
        self.live.add(trial_id)
        self._say_last()
        return {"number": number, "config": json.dumps(run.trials[number].config)}

    @_blocked_by_disk
    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The scheduler was told first and has recorded the end, except of a trial whose process never came up."""
        number = self.handed_out[trial_id]
        self.live.discard(trial_id)
        self._say_last()
        if error and not self.recorder.run.trials[number].final:
            self.recorder.ended(
                number, "failed", f"its process did not come up: {self.recorder.last_death.get(number, '')}"
            )
            self.source.ended(self.recorder.run.trials[number])

    def _say_last(self) -> None:
        if self.last is None or self.numbers or self.unsettled:
            return
        trials = [self.recorder.run.trials[self.handed_out[trial_id]] for trial_id in self.live]
        used = [[use.node for use in trial.slots if use.attempt == trial.attempt] for trial in trials]
        self.last([nodes[-1] if nodes else "" for nodes in used])

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        return True

    # Tune keeps a pickled copy for its own restoration, which is not used: the record is the truth.
    def __getstate__(self) -> dict[str, Any]:
        return {}

    def save(self, checkpoint_path: str) -> None:
        pass

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError("a sweep is resumed from its run directory")


class RecordScheduler(FIFOScheduler):
    """Passes each report to the recorder and obeys its decision. A trial whose process died is started again or given
    up.

    Tune itself is told to restart trials without limit, since it has one count for all kinds of death.
    """

    def __init__(self, recorder: Recorder, source: ConfigSource, max_failures: int, max_preemptions: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Ray's
        self.recorder, self.source = recorder, source
        self.limits = max_failures, max_preemptions
        self.deaths: dict[int, Deaths] = {}
        self.hung: dict[int, str] = {}  # trials whose process was killed, and why
        self.moving: set[int] = set()  # trials whose process ends because its node will be taken away

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """The first trial that waits. The inherited method goes through all trials there ever were, at every step."""
        waiting = [t for t in tune_controller.get_live_trials() if t.status in (Trial.PENDING, Trial.PAUSED)]
        return min(waiting, key=lambda trial: trial.config["number"], default=None)

    @_blocked_by_disk
    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        # Called again when Tune restarts a trial whose process died: that is another attempt.
        number = trial.config["number"]
        reason = self.deaths[number].too_many if number in self.deaths else ""
        if reason:
            self._end(number, reason)
            tune_controller.stop_trial(trial)
        else:
            self.recorder.started(number)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """Called for a trial that was stopped while it waited: `on_trial_add` has recorded why."""

    @_blocked_by_disk
    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        number = trial.config["number"]
        match from_result(result):
            case Reported(report):
                return self._decided(number, report)
            case Failed(reason):
                self._end(number, reason)
                return TrialScheduler.STOP
            case Blocked(reason):
                block(self.recorder, reason)
            case Began(slot, node):
                self.recorder.began(number, slot, node)
            case Noted(text):
                self.recorder.noted(number, text)
            case Moving():
                self.moving.add(number)
                self.recorder.moves(number)
            case Alive():
                pass  # EpochTimeout has heard it
        return TrialScheduler.CONTINUE

    def _decided(self, number: int, report: EpochReport) -> str:
        decision = self.recorder.received(report)
        if self.recorder.run.trials[number].final:
            self.source.ended(self.recorder.run.trials[number])
            # After the last epoch too: a final trial whose process dies must not be started again.
            return TrialScheduler.STOP
        return TrialScheduler.CONTINUE if decision == "continue" else TrialScheduler.STOP

    @_blocked_by_disk
    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        number = trial.config["number"]
        if not self.recorder.run.trials[number].final:
            self._end(number, "the loop returned before its last epoch")
        # Tune keeps a trial's last result and running statistics of its numbers. They are half of the memory that a
        # trial takes in this process, and nobody asks for them.
        trial.run_metadata.metric_analysis.clear()
        trial.run_metadata.metric_n_steps.clear()
        trial.run_metadata.last_result = {}

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        # Called for every process that died; Tune then adds the trial again.
        number = trial.config["number"]
        if number in self.moving:
            self.moving.remove(number)
            return
        error = _error(trial) if trial.pickled_error_file else RuntimeError("no reason known")
        went = machine_went(type(error).__name__, str(error), isinstance(error, RayActorError) and error.preempted)
        reason = self.hung.pop(number, first_line(error))
        self.deaths.setdefault(number, Deaths(*self.limits)).add(reason, went)
        self.recorder.died(number, f"with its machine: {reason}" if went else reason)

    def _end(self, number: int, reason: str) -> None:
        self.recorder.ended(number, "failed", reason)
        self.source.ended(self.recorder.run.trials[number])

    def __getstate__(self) -> dict[str, Any]:
        return {}


class AbortStopper(tune.Stopper):
    """Ends the experiment when the recorder says that going on is pointless or impossible, when the user interrupts it,
    or when Ray has died.

    All but the first end it at once, by SweepBlocked, KeyboardInterrupt and RayDied: Tune's own way waits for trials to
    unwind, only to save state that nobody needs. Tune asks between events, so no report is left half recorded.
    """

    def __init__(self, recorder: Recorder, interrupted: Callable[[], bool]) -> None:
        self.recorder, self.interrupted = recorder, interrupted

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        if self.recorder.blocked:
            raise SweepBlocked(self.recorder.blocked)
        if self.interrupted():
            raise KeyboardInterrupt
        if dead := dead_daemons():
            raise RayDied(" and ".join(dead))
        return bool(self.recorder.abort)

    def __deepcopy__(self, memo: dict[int, Any]) -> AbortStopper:
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {}


def _error(trial: Any) -> BaseException:
    """What Tune kept of the last error: a pickle beside the trial's other local files."""
    with open(trial.pickled_error_file, "rb") as file:
        error: BaseException = ray.cloudpickle.load(file)
        return error
