"""Whether probabilities mean what they say: reliability, its error, and the temperature that mends most of it.

Guo et al. 2017, On Calibration of Modern Neural Networks: all logits of a head are divided by one temperature, chosen
for the lowest cross entropy. The order of the classes does not change, and so no accuracy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fashion.statistics.outcomes import SMALLEST, HeadLabels
from fashion.statistics.resampling import SEED

BINS = 15
COLDEST, HOTTEST = 0.05, 20.0

_Logs = tuple[NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class Reliability:
    """Of a head: in each of B bins of equal width of the confidence, the number of predictions, their mean confidence
    and the share that is right, (B,) float64; NaN in a bin without any.

    A prediction is that of an image's most probable class; of a multi-label head each class of an image is one, and its
    confidence is that in 0 or 1, whichever is more probable. ece: the expected calibration error, the mean over the
    predictions of the distance between both.
    """

    counts: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    ece: float


def reliability(head: HeadLabels, probabilities: NDArray[Any], bins: int = BINS) -> Reliability:
    """Of the images whose label is known. probabilities: (N, classes). The error is NaN where no label is known."""
    if head.multi_label:
        known = head.labels >= 0
        single = np.asarray(probabilities)[known]
        confidence, right = np.maximum(single, 1 - single), (single > 0.5) == (head.labels[known] == 1)
    else:
        rows = np.asarray(probabilities)[head.known]
        confidence, right = rows.max(axis=1), rows.argmax(axis=1) == head.labels[head.known]
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    sums = np.bincount(place, confidence, bins), np.bincount(place, right.astype(float), bins)
    total = counts.sum()
    ece = float(np.abs(sums[0] - sums[1]).sum() / total) if total else float("nan")
    with np.errstate(invalid="ignore"):
        return Reliability(counts, sums[0] / counts, sums[1] / counts, ece)


def temperature(head: HeadLabels, probabilities: NDArray[Any]) -> float:
    """The temperature with the lowest cross entropy, within 0.05 and 20; 1 where no label is known."""
    from scipy.optimize import minimize_scalar

    logits = _log(probabilities)[head.known]
    known = HeadLabels(head.name, head.classes, head.labels[head.known])
    if not len(logits):
        return 1.0
    ends = np.log(COLDEST), np.log(HOTTEST)

    def loss(log: float) -> float:
        return _loss(known, _softened(known, logits, float(np.exp(log))))

    return float(np.exp(minimize_scalar(loss, bounds=ends, method="bounded").x))


def scaled(head: HeadLabels, probabilities: NDArray[Any], by: float) -> NDArray[np.float64]:
    """The probabilities (N, classes) at another temperature; those of a multi-label head each on its own."""
    return np.exp(_softened(head, _log(probabilities), by)[0])


def cross_scaled(
    head: HeadLabels, probabilities: NDArray[Any], folds: int = 5, seed: int = SEED
) -> NDArray[np.float64]:
    """The probabilities at temperatures that were fitted on other images, so that what they show is not flattered: each
    fifth of the images gets the temperature of the rest."""
    images = len(head.labels)
    fold = np.random.default_rng(seed).permutation(images) % max(min(folds, images), 1)
    given = np.asarray(probabilities, np.float64)
    found = given.copy()
    for each in range(int(fold.max(initial=-1)) + 1):
        rest, own = fold != each, fold == each
        fitted = temperature(HeadLabels(head.name, head.classes, head.labels[rest]), given[rest])
        found[own] = scaled(HeadLabels(head.name, head.classes, head.labels[own]), given[own], fitted)
    return found


def _log(probabilities: NDArray[Any]) -> NDArray[np.float64]:
    return np.log(np.maximum(np.asarray(probabilities, np.float64), float(SMALLEST)))


def _softened(head: HeadLabels, logs: NDArray[np.float64], by: float) -> _Logs:
    """The log-probabilities at a temperature, of each class and, for a multi-label head, of its absence."""
    logs = logs / by
    if not head.multi_label:
        top = logs.max(axis=1, keepdims=True)
        logs = logs - top - np.log(np.exp(logs - top).sum(axis=1, keepdims=True))
        return logs, logs
    absent = _log(-np.expm1(np.minimum(logs * by, 0))) / by
    whole = np.logaddexp(logs, absent)
    return logs - whole, absent - whole


def _loss(head: HeadLabels, logs: _Logs) -> float:
    if head.multi_label:
        present, absent = logs
        known = head.labels >= 0
        return float(-np.where(head.labels == 1, present, absent)[known].mean())
    return float(-logs[0][np.arange(len(head.labels)), head.labels].mean())
