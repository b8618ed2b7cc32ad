"""Tune's three hooks, each a few lines over the record: who is next, who goes on, when to give up.

Tune is an engine that may die at any moment. It is told trial numbers and decisions; it keeps nothing that must last.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import ray.cloudpickle
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from fashion.record import EpochReport
from fashion.recorder import Recorder
from fashion.search import Source
from fashion.task import first_line


class NumberSearcher(Searcher):
    """Hands out trial numbers with their configurations; each is recorded before Tune sees it."""

    def __init__(self, numbers: Iterator[int], source: Source, recorder: Recorder) -> None:
        super().__init__()
        self.numbers, self.source, self.recorder = numbers, source, recorder
        self.handed_out: dict[str, int] = {}  # Tune's id of a trial -> its number

    def suggest(self, trial_id: str) -> Any:
        number = next(self.numbers, None)
        if number is None or self.recorder.abort:
            return Searcher.FINISHED
        run = self.recorder.run
        if number not in run.trials:
            run.record_trial(number, self.source.config(number).model_dump(mode="json"))
        self.handed_out[trial_id] = number
        return {"number": number, "config": json.dumps(run.trials[number].config)}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The record knows already (the scheduler is told first), but for a trial that Tune does not start again."""
        if error:
            number = self.handed_out[trial_id]
            deaths = self.recorder.deaths[number]
            self.recorder.ended(number, "failed", f"its process died {len(deaths)} times: {deaths[-1]}")
            self.source.ended(self.recorder.run.trials[number])

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
    """Passes each report to the recorder and obeys its decision."""

    def __init__(self, recorder: Recorder, source: Source) -> None:
        super().__init__()
        self.recorder, self.source = recorder, source

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """The first that waits. The inherited way looks at all trials there ever were, at every step of Tune's."""
        waiting = [t for t in tune_controller.get_live_trials() if t.status in (Trial.PENDING, Trial.PAUSED)]
        return min(waiting, key=lambda trial: trial.config["number"], default=None)

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        # Called again when Tune starts a trial anew after its process died: that is another attempt.
        self.recorder.started(trial.config["number"])

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        number = trial.config["number"]
        if "failed" in result:
            self._end(number, str(result["failed"]))
            return TrialScheduler.STOP
        decision = self.recorder.received(EpochReport.from_json(json.loads(result["report"])))
        if self.recorder.run.trials[number].final:
            self.source.ended(self.recorder.run.trials[number])
            # After the last epoch too: a final trial whose process dies must not be started again.
            return TrialScheduler.STOP
        return TrialScheduler.CONTINUE if decision == "continue" else TrialScheduler.STOP

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        number = trial.config["number"]
        if not self.recorder.run.trials[number].final:
            self._end(number, "the loop returned before its last epoch")

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        # Called for every death, also when Tune then starts the trial again: the end is the searcher's to tell.
        self.recorder.died(trial.config["number"], _reason(trial) if trial.pickled_error_file else "no reason known")

    def _end(self, number: int, reason: str) -> None:
        self.recorder.ended(number, "failed", reason)
        self.source.ended(self.recorder.run.trials[number])

    def __getstate__(self) -> dict[str, Any]:
        return {}


class AbortStopper(tune.Stopper):
    """Ends the experiment when the recorder says that going on is pointless, or the user wants it to end.

    The latter at once, by KeyboardInterrupt: Tune's own way waits for trials to unwind, for nothing but its own state.
    Tune asks between events, so that no report is half recorded.
    """

    def __init__(self, recorder: Recorder, interrupted: Callable[[], bool]) -> None:
        self.recorder, self.interrupted = recorder, interrupted

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        if self.interrupted():
            raise KeyboardInterrupt
        return bool(self.recorder.abort)

    def __deepcopy__(self, memo: dict[int, Any]) -> AbortStopper:
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {}


def _reason(trial: Any) -> str:
    """What Tune kept of the last error: a pickle beside the trial's other local files."""
    with open(trial.pickled_error_file, "rb") as file:
        return first_line(ray.cloudpickle.load(file))
