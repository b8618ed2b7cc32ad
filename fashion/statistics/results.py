"""What the statistics return: frozen, and without numpy, since what was computed once is kept and read again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

LEAST_IMAGES = 20  # of each class; below that an interval is marked unreliable
LEVEL = 0.95  # of every interval, and of the tied set


class Interval(NamedTuple):
    """A metric and its 95 % interval for new images. Shares are in [0, 1], losses in nats.

    reliable: whether every class that the metric is about has at least 20 validation images. With fewer, the interval
    covers the true value less often than it says.

    A named tuple, since `best` reads thousands of them.
    """

    value: float
    low: float
    high: float
    reliable: bool


@dataclass(frozen=True)
class Difference:
    """A paired difference of two models on the same images, first less second, and its interval, of 95 % unless
    something else is said."""

    value: float
    low: float
    high: float

    @property
    def within_noise(self) -> bool:
        """Whether the interval contains 0, so that neither may be called better."""
        return self.low <= 0 <= self.high


def lower_is_better(metric: str) -> bool:
    """Whether less of the metric is better: of losses."""
    return metric.startswith(("val_loss", "loss"))
