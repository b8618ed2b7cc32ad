"""Trials that hang: their processes are killed, and they are started again."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import ray
from ray import tune

from fashion.engine.tune_hooks import RecordScheduler

STEP_SECONDS = 2.0  # the longest step of Tune that is taken for one without a pause


class EpochTimeout(tune.Callback):
    """Kills the process of a trial that reports nothing for `seconds`; the scheduler then hears of a death, with that
    reason. For a trial of several workers that process is the slot, and its workers end with it.

    Only time counts in which this process itself was running. When a laptop sleeps, a machine is paused, somebody stops
    the command for a while, or the driver swaps, its trials had no chance to report, or nobody to report to.
    """

    def __init__(self, seconds: float, scheduler: RecordScheduler, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds, self.scheduler, self.clock = seconds, scheduler, clock
        self.awake, self.looked = 0.0, clock()  # seconds that this process was running; when it last looked
        self.heard: dict[str, tuple[Any, float]] = {}  # Tune's id of a running trial -> the trial, when it was heard of

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.heard[trial.trial_id] = trial, self._now()

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any) -> None:
        if trial.trial_id in self.heard:
            self.heard[trial.trial_id] = trial, self._now()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.heard.pop(trial.trial_id, None)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.heard.pop(trial.trial_id, None)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.heard.pop(trial.trial_id, None)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        now = self._now()
        for name, (trial, heard) in list(self.heard.items()):
            if now - heard > self.seconds and trial.temporary_state.ray_actor is not None:
                reason = f"no report for {self.seconds:g} s (resources.epoch_timeout): it hung and was killed"
                self.scheduler.hung[trial.config["number"]] = reason
                del self.heard[name]
                ray.kill(trial.temporary_state.ray_actor)

    def _now(self) -> float:
        """Seconds that this process was running since the sweep began. Tune takes a step several times a second: of
        what lies between two steps, more than STEP_SECONDS was spent asleep."""
        moment = self.clock()
        self.awake += min(moment - self.looked, STEP_SECONDS)
        self.looked = moment
        return self.awake

    def __getstate__(self) -> dict[str, Any]:
        return {}
