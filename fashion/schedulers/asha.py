"""Asynchronous successive halving, and Hyperband as several brackets of it."""

from __future__ import annotations

import math
from bisect import insort
from dataclasses import dataclass, field

from fashion.schedulers.base import TOLERANCE, Compare, Decision, Mode, RungState, Scheduler


@dataclass
class _Rung:
    milestone: float
    rewards: list[float] = field(default_factory=list)  # ascending
    promoted: int = 0

    def cutoff(self, reduction: float) -> float | None:
        """The (1 - 1/reduction) quantile of the rewards, linearly interpolated: bit for bit numpy's percentile."""
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
    so the first always does. A trial that skips rungs because it has few epochs is entered and judged in each of them;
    Ray enters it in the highest only, which leaves the lower rungs thin. By fraction all rungs are below 1; by epoch
    there is no last rung.
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
                self._miss(trial, milestone, reward, cutoff)
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
    """Asynchronous Hyperband (Li et al. 2018, section 3): ASHA with several brackets side by side. Each bracket starts
    halving at a later rung, so that trials that start slowly have a chance. Nothing waits for a bracket to fill."""

    def __init__(self, grace: float = 0.1, reduction: float = 3.0, mode: Mode = "min", brackets: int = 3,
                 metric: str = "val_loss", compare: Compare = "fraction") -> None:  # fmt: skip
        super().__init__(grace, reduction, mode, brackets, metric, compare)
