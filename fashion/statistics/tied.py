"""Which models can't be told from the best: a model confidence set (Hansen, Lunde and Nason 2011).

It contains every truly best model with a probability of about 95 %, however many there are and however their errors
are correlated. A paired bootstrap of all models against the winner would not: the winner was chosen by the same images,
so its lead over its equals is that of a maximum. Here the critical value is that of the largest studentised difference
of any two of the models that are left (their statistic T_R). Models go in rounds instead of one by one, which is the
step-down of Romano and Wolf (2005): all whose difference to another is larger, until a round drops none.

The standard errors are computed and not those of the draws. Of 500 models there are 124,750 differences, of which the
draws put some errors too low; these pairs stand out among what was measured, but not among the draws themselves, and
equal models are then dropped too often. For the same reason the critical value, which the draws give for an error that
is known, is widened as Student's t is wider than the normal distribution.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fashion.statistics.influence import influences, standard_errors
from fashion.statistics.resampling import Resampled
from fashion.statistics.results import LEVEL, Difference, lower_is_better

_TINY = 1e-6  # a standard error below it is that of two models that made the same of every image, up to rounding


def tied_set(resampled: Resampled, metric: str = "val_loss", level: float = LEVEL) -> tuple[int, ...]:
    """The indices of the models that can't be told from the best by this metric, the best first."""
    worse, centred = _signed(resampled, metric)
    alive = np.flatnonzero(np.isfinite(worse))
    if len(alive) < 2:
        return tuple(alive.tolist())
    images = resampled.outcomes.images
    scales = _inverse(standard_errors(influences(resampled.outcomes, metric)[alive])).astype(np.float32)
    # Bonferroni's bound, at a tenth of the level, needs no look at the pairs, and rids a sweep of most of its trials.
    bound = -NormalDist().inv_cdf((1 - level) / 10 / (len(alive) * (len(alive) - 1)))
    kept = _within(worse[alive], scales, _student(bound, images))
    while True:
        alive, scales = alive[kept], scales[np.ix_(kept, kept)]
        kept = _within(worse[alive], scales, _student(_critical(centred[alive], scales, level), images))
        if kept.all():
            return tuple(alive[np.argsort(worse[alive], kind="stable")].tolist())


def gains(resampled: Resampled, metric: str, model: int, level: float = LEVEL) -> tuple[int, Difference]:
    """The best model by a metric, and what it has more of it than `model`, with an interval that holds for all models
    at once: where `model` is the best in truth, it is meant to lie above 0 in 5 % of sweeps at most.

    The sign is such that more is better, so that of a loss it is what the best one has less."""
    worse, centred = _signed(resampled, metric)
    best = int(np.nanargmin(worse))
    influence = influences(resampled.outcomes, metric)
    own_part = influence[model] - influence
    images = resampled.outcomes.images
    errors = np.sqrt((own_part**2).sum(axis=1) * images / max(images - 1, 1))
    ahead = (centred[model] - centred) * _inverse(errors)[:, None]
    critical = _student(_quantile(ahead.max(axis=0), level), images)
    value, width = float(worse[model] - worse[best]), float(critical * errors[best])
    return best, Difference(value, value - width, value + width)


def _signed(resampled: Resampled, metric: str) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """A metric of each model with the sign that makes more worse, and its draws' deviations from it."""
    sign = 1.0 if lower_is_better(metric) else -1.0
    draws = resampled.draws[metric]
    draws = draws[:, np.isfinite(draws[0])]
    values = resampled.values[metric]
    return sign * values, (np.float32(sign) * (draws - values[:, None].astype(np.float32))).astype(np.float32)


def _inverse(errors: NDArray[np.float64]) -> NDArray[np.float64]:
    """One over each standard error; 0 for two models that made the same of every image."""
    return np.where(errors > _TINY, 1 / np.maximum(errors, _TINY), 0)


def _within(worse: NDArray[np.float64], scales: NDArray[np.float32], critical: float) -> NDArray[np.bool_]:
    """(T,) which models are worse than no other by more than the critical value."""
    within: NDArray[np.bool_] = ((worse[:, None] - worse[None, :]) * scales).max(axis=1) <= critical
    return within


def _critical(centred: NDArray[np.float32], scales: NDArray[np.float32], level: float) -> float:
    """The quantile over the draws of the largest studentised difference of any two models."""
    most = scales.max(axis=1)
    largest = np.zeros(centred.shape[1], np.float32)
    for number, values in enumerate(np.ascontiguousarray(centred.T)):
        lowest, highest = values.argmin(), values.argmax()
        above, below = values - values[lowest], values[highest] - values
        reached = max((above * scales[lowest]).max(), (below * scales[highest]).max())
        # Most models are so far from either end that no pair with them can be the largest: these are not paired.
        able = np.flatnonzero(np.maximum(above, below) * most >= reached)
        pairs = np.abs(values[able, None] - values[able]) * scales[np.ix_(able, able)]
        largest[number] = pairs.max(initial=reached)
    return _quantile(largest, level)


def _student(critical: float, images: int) -> float:
    """What Student's t exceeds, with one degree of freedom less than images, as often as a normal value `critical`."""
    from scipy.special import ndtr, stdtrit

    return max(float(-stdtrit(max(images - 1, 1), ndtr(-critical))), 0.0)


def _quantile(values: NDArray[Any], level: float) -> float:
    """The level's order statistic of B draws, which a further draw exceeds with a probability of 1 - level at most."""
    place = min(math.ceil(level * (len(values) + 1)), len(values)) - 1
    return float(np.partition(values, place)[place])
