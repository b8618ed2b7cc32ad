"""Early stopping as pure code over (trial, progress, value): nothing here knows of Ray, files or clocks.

Progress is by default the fraction of a trial's own schedule that is done. A trial of 10 epochs at epoch 5 has cooled
its cosine half way; one of 50 epochs at epoch 5 hardly began. Compared by epoch the short one looks better whatever
the final results, so that comparing by epoch kills the long trials that win in the end.

A decision is a function of the reports fed before it, so feeding the journal once more rebuilds every rung.
"""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import median
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal, Protocol

from fashion.errors import Problem, RunError
from fashion.record.trial import Decision, EpochReport
from fashion.record.validate import SCHEDULER, check

if TYPE_CHECKING:
    from fashion.record.run import Run

Mode = Literal["min", "max"]
Compare = Literal["fraction", "epoch"]

# 3/10 must be at the rung 0.1 * 3 = 0.30000000000000004.
TOLERANCE = 1e-9


class SchedulerConfig(Protocol):
    """The fields of the spec's scheduler section that decisions depend on."""

    @property
    def name(self) -> str: ...
    @property
    def metric(self) -> str: ...
    @property
    def grace(self) -> float: ...
    @property
    def reduction(self) -> float: ...
    @property
    def compare(self) -> str: ...
    @property
    def brackets(self) -> int: ...


@dataclass(frozen=True)
class RungState:
    """A rung as a display shows it. `entries` trials have reached it, `promoted` of them went on; `cutoff` is the
    metric's value that the next one must reach (None while empty)."""

    bracket: int
    rung: float
    entries: int
    promoted: int
    cutoff: float | None


class Scheduler:
    """Common to all: NaN and infinity stop, a stop is for good, the same report twice is the same decision."""

    def __init__(self, mode: Mode = "min", metric: str = "val_loss", compare: Compare = "fraction") -> None:
        self.mode = mode
        self.metric = metric
        self.compare = compare
        self._sign = 1.0 if mode == "max" else -1.0
        self.entries = 0  # how often a trial has entered a rung
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

    def observe(self, report: EpochReport) -> Decision:
        """`report` with the progress that this scheduler compares by."""
        progress = report.progress if self.compare == "fraction" else float(report.epoch)
        return self.report(report.trial, progress, report.metrics)

    def rungs(self) -> list[RungState]:
        return []

    def _decide(self, trial: int, progress: float, reward: float) -> Decision:
        """`reward` is the finite value with the sign that makes more better."""
        raise NotImplementedError


class Fifo(Scheduler):
    """Every trial runs to its end, unless its metric stops being a number."""

    def _decide(self, trial: int, progress: float, reward: float) -> Decision:
        return "continue"


@dataclass
class _Rung:
    milestone: float
    rewards: list[float] = field(default_factory=list)  # ascending
    promoted: int = 0

    def cutoff(self, reduction: float) -> float | None:
        """The (1 - 1/reduction) quantile of the rewards, linearly interpolated; to the bit numpy's percentile."""
        if not self.rewards:
            return None
        position = (1 - 1 / reduction) * 100 / 100 * (len(self.rewards) - 1)
        below = math.floor(position)
        low, high = self.rewards[below], self.rewards[min(below + 1, len(self.rewards) - 1)]
        share = position - below
        return high - (high - low) * (1 - share) if share >= 0.5 else low + (high - low) * share


class Asha(Scheduler):
    """Asynchronous successive halving (Li et al. 2018, arXiv:1810.05934), the stopping variant that Ray Tune has.

    Rungs stand at grace * reduction^k; bracket s begins at k = s, and a trial belongs to bracket (number mod brackets).
    A trial that reaches a rung goes on unless it is worse than the (1 - 1/reduction) quantile of those there before it,
    so the first always does. One that skips rungs (few epochs) is entered and judged in each, where Ray enters it in
    the highest only and so leaves the lower ones thin. By fraction the rungs end below 1; by epoch there is no end.
    """

    def __init__(self, grace: float = 0.1, reduction: float = 3.0, mode: Mode = "min", brackets: int = 1,
                 metric: str = "val_loss", compare: Compare = "fraction") -> None:  # fmt: skip
        super().__init__(mode, metric, compare)
        if grace <= 0 or reduction <= 1 or brackets < 1:
            raise ValueError(f"grace > 0, reduction > 1, brackets >= 1; got {grace}, {reduction}, {brackets}")
        self.grace = grace
        self.reduction = reduction
        self.brackets = brackets
        self._rungs: list[list[_Rung]] = [[] for _ in range(brackets)]
        self._passed: dict[int, int] = {}  # trial -> how many rungs of its bracket it has entered

    def _milestone(self, bracket: int, index: int) -> float | None:
        milestone = float(self.grace * self.reduction ** (index + bracket))
        return None if self.compare == "fraction" and milestone >= 1 - TOLERANCE else milestone

    def _decide(self, trial: int, progress: float, reward: float) -> Decision:
        bracket = trial % self.brackets
        rungs = self._rungs[bracket]
        decision: Decision = "continue"
        while True:
            index = self._passed.get(trial, 0)
            milestone = self._milestone(bracket, index)
            if milestone is None or progress < milestone * (1 - TOLERANCE):
                return decision
            if index == len(rungs):
                rungs.append(_Rung(milestone))
            rung = rungs[index]
            cutoff = rung.cutoff(self.reduction)
            insort(rung.rewards, reward)
            self.entries += 1
            self._passed[trial] = index + 1
            if cutoff is not None and reward < cutoff:
                decision = "stop"
            elif decision == "continue":
                rung.promoted += 1

    def rungs(self) -> list[RungState]:
        """The rungs that some trial has reached, bracket by bracket, lowest first."""
        states = []
        for bracket, rungs in enumerate(self._rungs):
            for rung in rungs:
                cutoff = rung.cutoff(self.reduction)
                value = None if cutoff is None else self._sign * cutoff
                states.append(RungState(bracket, rung.milestone, len(rung.rewards), rung.promoted, value))
        return states


class Hyperband(Asha):
    """Asynchronous Hyperband (Li et al. 2018, section 3): ASHA with several brackets side by side, each halving from a
    later rung on, so that trials that start slowly have a chance. Nothing waits for a bracket to fill."""

    def __init__(self, grace: float = 0.1, reduction: float = 3.0, mode: Mode = "min", brackets: int = 3,
                 metric: str = "val_loss", compare: Compare = "fraction") -> None:  # fmt: skip
        super().__init__(grace, reduction, mode, brackets, metric, compare)


@dataclass
class _Course:
    """A trial's rewards so far: where it reported, and the sums that make running means cheap."""

    progress: list[float] = field(default_factory=list)
    sums: list[float] = field(default_factory=lambda: [0.0])
    best: float = -math.inf

    def mean(self, grace: float, until: float) -> float | None:
        """Mean of the rewards reported from `grace` to `until`; None without any."""
        first, last = (
            bisect_right(self.progress, grace * (1 - TOLERANCE)),
            bisect_right(self.progress, until * (1 + TOLERANCE)),
        )
        return (self.sums[last] - self.sums[first]) / (last - first) if last > first else None


class Median(Scheduler):
    """The median stopping rule (Golovin et al. 2017, "Google Vizier", section 3.2.2, as in Ray Tune): after `grace` a
    trial stops when its best value so far is worse than the median of the other trials' running means up to the
    same progress, once `min_trials` others have come as far."""

    def __init__(self, grace: float = 0.1, min_trials: int = 3, mode: Mode = "min",
                 metric: str = "val_loss", compare: Compare = "fraction") -> None:  # fmt: skip
        super().__init__(mode, metric, compare)
        self.grace = grace
        self.min_trials = min_trials
        self._courses: dict[int, _Course] = {}
        # By progress at which trials are judged: the means until there of all that came so far, which change no more. Looking
        # at every trial for every report took 0.01 s with 10,000 of them.
        self._means: dict[float, list[float]] = {}

    def _decide(self, trial: int, progress: float, reward: float) -> Decision:
        if progress >= self.grace * (1 - TOLERANCE) and progress not in self._means:
            came = [c for c in self._courses.values() if c.progress[-1] >= progress * (1 - TOLERANCE)]
            until = [course.mean(self.grace, progress) for course in came]
            self._means[progress] = sorted(mean for mean in until if mean is not None)
        course = self._courses.setdefault(trial, _Course())
        before = course.progress[-1] if course.progress else -math.inf
        course.progress.append(progress)
        course.sums.append(course.sums[-1] + reward)
        course.best = max(course.best, reward)
        others = self._means.get(progress, [])
        stops = len(others) >= self.min_trials and course.best < median(others)
        for place, means in self._means.items():
            if before < place * (1 - TOLERANCE) <= progress and (mean := course.mean(self.grace, place)) is not None:
                insort(means, mean)
        return "stop" if stops else "continue"


def mode_of(metric: str) -> Mode:
    """Whether less or more of a metric is better: losses are minimised, accuracies maximised."""
    return "min" if "loss" in metric else "max"


def make_scheduler(config: SchedulerConfig) -> Scheduler:
    """The scheduler that a spec asks for. Raises ValueError for a name that is none (the spec refuses it earlier)."""
    mode = mode_of(config.metric)
    compare: Compare = "epoch" if config.compare == "epoch" else "fraction"
    if config.name == "asha":
        return Asha(config.grace, config.reduction, mode, config.brackets, config.metric, compare)
    if config.name == "hyperband":
        return Hyperband(config.grace, config.reduction, mode, config.brackets, config.metric, compare)
    if config.name == "median":
        return Median(config.grace, mode=mode, metric=config.metric, compare=compare)
    if config.name == "fifo":
        return Fifo(mode, config.metric, compare)
    raise ValueError(f"no scheduler is called {config.name!r}")


def replay(
    scheduler: Scheduler, history: Iterable[tuple[EpochReport, Decision]]
) -> list[tuple[EpochReport, Decision, Decision]]:
    """Feed recorded reports, in the journal's order. Returns where the scheduler decides otherwise than is recorded,
    as (report, recorded, decided): empty unless the scheduler's settings have changed since."""
    decisions = [(report, recorded, scheduler.observe(report)) for report, recorded in history]
    return [entry for entry in decisions if entry[1] != entry[2]]


def scheduler_of(run: Run) -> Scheduler:
    """The scheduler of a recorded run in its present state, rungs included, rebuilt from the record alone."""
    scheduler = fresh_scheduler_of(run)
    try:
        replay(scheduler, run.history)
    except KeyError as error:
        raise RunError(
            str(Problem(str(run.journal_path), "its reports lack the scheduler's metric", str(error)))
        ) from None
    return scheduler


def fresh_scheduler_of(run: Run) -> Scheduler:
    """The scheduler of a recorded run before its first report. Raises RunError for settings that are none."""
    try:
        settings: dict[str, Any] = run.manifest["spec"]["scheduler"]
        check(settings, SCHEDULER, SCHEDULER)
    except (KeyError, ValueError) as error:
        place = f"{run.path / 'manifest.json'} spec.scheduler"
        raise RunError(str(Problem(place, "is no scheduler of this version", str(error)))) from None
    return make_scheduler(SimpleNamespace(**settings))
