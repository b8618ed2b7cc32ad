"""Which models can't be told from the best: a model confidence set (Hansen, Lunde and Nason 2011).

It contains every truly best model with a probability of at least 95 %, however many there are and however their errors
are correlated. A paired bootstrap of all models against the winner would not: the winner was chosen by the same images,
so its lead over its equals is that of a maximum. Here the critical value is that of the largest studentised difference
of any two of the models that are left (their statistic T_R). Models go in rounds instead of one by one, which is the
step-down of Romano and Wolf (2005): all whose difference to another is larger, until a round drops none.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fashion.statistics.resampling import Resampled
from fashion.statistics.results import LEVEL, Difference, lower_is_better

_TINY = 1e-6  # a standard error below it is that of two models that made the same of every image, up to rounding


def tied_set(resampled: Resampled, metric: str = "val_loss", level: float = LEVEL) -> tuple[int, ...]:
    """The indices of the models that can't be told from the best by this metric, the best first."""
    worse, centred = _signed(resampled, metric)
    alive = np.flatnonzero(np.isfinite(worse))
    if len(alive) < 2:
        return tuple(alive.tolist())
    scales = _inverse_errors(centred[alive])
    # Bonferroni's bound, at a tenth of the level, needs no look at the pairs, and rids a sweep of most of its trials.
    critical = -NormalDist().inv_cdf((1 - level) / 10 / (len(alive) * (len(alive) - 1)))
    while True:
        values = worse[alive]
        kept = ((values[:, None] - values[None, :]) * scales).max(axis=1) <= critical
        alive, scales = alive[kept], scales[np.ix_(kept, kept)]
        tighter = _critical(centred[alive], scales, level)
        if kept.all() and tighter >= critical:
            break
        critical = tighter
    return tuple(alive[np.argsort(worse[alive], kind="stable")].tolist())


def gains(resampled: Resampled, metric: str, model: int, level: float = LEVEL) -> tuple[int, Difference]:
    """The best model by a metric, and what it has more of it than `model`, with an interval that holds for all models
    at once: where `model` is the best in truth, it lies above 0 in at most 5 % of sweeps.

    The sign is such that more is better, so that of a loss it is what the best one has less."""
    worse, centred = _signed(resampled, metric)
    best = int(np.nanargmin(worse))
    ahead = centred[model] - centred
    errors = ahead.std(axis=1)
    scales = np.where(errors > _TINY, 1 / np.maximum(errors, _TINY), 0)
    critical = _quantile((ahead * scales[:, None]).max(axis=0), level)
    value, width = float(worse[model] - worse[best]), float(critical * errors[best])
    return best, Difference(value, value - width, value + width)


def _signed(resampled: Resampled, metric: str) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """A metric of each model with the sign that makes more worse, and its draws' deviations from it."""
    sign = 1.0 if lower_is_better(metric) else -1.0
    draws = resampled.draws[metric]
    draws = draws[:, np.isfinite(draws[0])]
    values = resampled.values[metric]
    return sign * values, (np.float32(sign) * (draws - values[:, None].astype(np.float32))).astype(np.float32)


def _inverse_errors(centred: NDArray[np.float32]) -> NDArray[np.float32]:
    """(T, T) one over the standard error of each difference; 0 for two models that made the same of every image."""
    # The common part of all models' errors cancels in every difference; without it the digits suffice.
    own_part = (centred - centred.mean(axis=0, keepdims=True)).astype(np.float64)
    own_part -= own_part.mean(axis=1, keepdims=True)
    products = own_part @ own_part.T / own_part.shape[1]
    own = np.diag(products)
    errors = np.sqrt(np.maximum(own[:, None] + own[None, :] - 2 * products, 0))
    return np.where(errors > _TINY, 1 / np.maximum(errors, _TINY), 0).astype(np.float32)


def _critical(centred: NDArray[np.float32], scales: NDArray[np.float32], level: float) -> float:
    """The quantile over the draws of the largest studentised difference of any two models."""
    largest = np.zeros(centred.shape[1], np.float32)
    for index in range(len(centred) - 1):
        apart = centred[index + 1 :] - centred[index]
        apart *= scales[index, index + 1 :, None]
        np.abs(apart, out=apart)
        np.maximum(largest, apart.max(axis=0), out=largest)
    return _quantile(largest, level)


def _quantile(values: NDArray[Any], level: float) -> float:
    """The level's order statistic of B draws, which a further draw exceeds with a probability of 1 - level at most."""
    place = min(math.ceil(level * (len(values) + 1)), len(values)) - 1
    return float(np.partition(values, place)[place])
