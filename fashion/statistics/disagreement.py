"""Where criteria disagree: who would be the winner by another metric, and what that choice would give up."""

from __future__ import annotations

from dataclasses import dataclass

from fashion.statistics.resampling import Resampled, difference
from fashion.statistics.results import Difference
from fashion.statistics.tied import gains


@dataclass(frozen=True)
class OtherChoice:
    """The model that is the best by a metric by which the winner is not.

    gains: how much better it is by that metric (positive), with an interval that allows for the choice among all
    models. gives_up: how much higher its val_loss is than the winner's.
    """

    metric: str
    model: int
    gains: Difference
    gives_up: Difference

    @property
    def within_noise(self) -> bool:
        """Whether no model can be said to be better than the winner by this metric."""
        return self.gains.within_noise


def other_choices(resampled: Resampled, winner: int, by: str = "val_loss") -> list[OtherChoice]:
    """One for each metric by which another model than the winner has the best value."""
    found = []
    for metric in resampled.metrics:
        best, ahead = gains(resampled, metric, winner)
        if metric != by and ahead.value > 0:
            found.append(OtherChoice(metric, best, ahead, difference(resampled, by, best, winner)))
    return found
