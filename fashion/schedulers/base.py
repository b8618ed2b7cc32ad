"""Early stopping as pure code over (trial, progress, value): nothing here knows of Ray, files or clocks.

Progress is by default the fraction of a trial's own schedule that is done. A trial of 10 epochs at epoch 5 has cooled
its learning rate half way down; one of 50 epochs has barely begun at epoch 5. Compared by epoch, the short one looks
better whatever the final results, so comparing by epoch stops the long trials that would win in the end.

A decision is a function of the reports fed before it, so feeding the journal once more rebuilds every rung.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol

Decision = Literal["continue", "stop"]
Mode = Literal["min", "max"]
Compare = Literal["fraction", "epoch"]

# Relative: a progress of 3/10 counts as having reached the rung 0.1 * 3 = 0.30000000000000004.
TOLERANCE = 1e-9
# The bounds of the settings, for specs and for records.
LEAST_REDUCTION = 1.1  # closer to 1 there would be rungs without end
MOST_REDUCTION = 100.0
MOST_BRACKETS = 20


class Report(Protocol):
    """What a scheduler reads of an epoch's report."""

    @property
    def trial(self) -> int: ...
    @property
    def epoch(self) -> int: ...
    @property
    def progress(self) -> float: ...
    @property
    def metrics(self) -> dict[str, float]: ...


@dataclass(frozen=True)
class RungState:
    """A rung as a display shows it. `entries` trials have reached it and `promoted` of them went on; `cutoff` is the
    value of the metric that the next trial must reach (None while the rung is empty)."""

    bracket: int
    rung: float
    entries: int
    promoted: int
    cutoff: float | None


@dataclass(frozen=True)
class Missed:
    """Why a trial was stopped: at `progress` its metric was `value` when `needed` was to be reached. What is to be
    reached moves as trials arrive, so that a later one may go on with less."""

    progress: float
    value: float
    needed: float


class Scheduler:
    """What all schedulers share: NaN and infinity stop a trial, a stop is final, and a report that is fed twice gets
    the same decision twice."""

    def __init__(self, mode: Mode = "min", metric: str = "val_loss", compare: Compare = "fraction") -> None:
        self.mode = mode
        self.metric = metric
        self.compare = compare
        self._sign = 1.0 if mode == "max" else -1.0
        self.entries = 0  # how often a trial has entered a rung
        self.missed: dict[int, Missed] = {}  # trials that were worse than the others
        self._decided: dict[tuple[int, float], Decision] = {}
        self._stopped: set[int] = set()

    def report(self, trial: int, progress: float, metrics: dict[str, float]) -> Decision:
        """Decide whether `trial` goes on after `progress` (epochs, or the fraction of its schedule). Raises KeyError
        when `metrics` lacks the scheduler's metric."""
        known = self._decided.get((trial, progress))
        if known is not None:
            return known
        value = metrics[self.metric]
        decision: Decision = "stop"
        if math.isfinite(value):
            decision = self._decide(trial, progress, self._sign * value)
        if decision == "stop":
            self._stopped.add(trial)
        self._decided[trial, progress] = decision = "stop" if trial in self._stopped else "continue"
        return decision

    def observe(self, report: Report) -> Decision:
        """`report` with the progress that this scheduler compares by."""
        progress = report.progress if self.compare == "fraction" else float(report.epoch)
        return self.report(report.trial, progress, report.metrics)

    def rungs(self) -> list[RungState]:
        return []

    def _miss(self, trial: int, progress: float, reward: float, needed: float) -> None:
        """Note why a trial stops; both are rewards. The first reason holds."""
        self.missed.setdefault(trial, Missed(progress, self._sign * reward, self._sign * needed))

    def _decide(self, trial: int, progress: float, reward: float) -> Decision:
        """`reward` is the finite value with the sign that makes more better."""
        raise NotImplementedError


class Fifo(Scheduler):
    """Every trial runs to its end, unless its metric stops being a number."""

    def _decide(self, trial: int, progress: float, reward: float) -> Decision:
        return "continue"
