"""Whether probabilities mean what they say: reliability, its error, and the temperature that mends most of it.

Guo et al. 2017, On Calibration of Modern Neural Networks: all logits of a head are divided by one temperature, chosen
for the lowest cross entropy. The order of the classes does not change, and so no accuracy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fashion.statistics.outcomes import SMALLEST, HeadLabels
from fashion.statistics.resampling import SEED

BINS = 15  # of equal width, as Guo et al. have them
COLDEST, HOTTEST = 0.05, 20.0  # beyond, a head tells nothing, or everything

_Logs = tuple[NDArray[np.float64], NDArray[np.float64]]


class ReliabilityBin(NamedTuple):
    """The predictions whose confidence is above `low` and at most `high`: how many, how confident and how often right
    on average (None for none)."""

    low: float
    high: float
    number: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Reliability:
    """Of a head's predictions, in bins of equal width of the confidence.

    A prediction is that of an image's most probable class; of a multi-label head each class of an image is one, and its
    confidence is that in 0 or 1, whichever is more probable. ece: the expected calibration error, the mean over the
    predictions of the distance between a bin's confidence and its accuracy. cross_entropy: the mean over the known
    labels, in nats. Both are NaN where no label is known.
    """

    bins: tuple[ReliabilityBin, ...]
    ece: float
    cross_entropy: float


@dataclass(frozen=True)
class Calibration:
    """Reliability before and after scaling. labels: how many are known. temperature: fitted on all images; above 1 the
    model is too confident. after: at temperatures that were fitted on other images, so that it is not flattered."""

    labels: int
    temperature: float
    before: Reliability
    after: Reliability


def calibration(head: HeadLabels, probabilities: NDArray[Any]) -> Calibration | None:
    """Of recorded probabilities (N, classes). None with fewer than two images that have a label."""
    if int(head.known.sum()) < 2:
        return None
    return Calibration(
        int(head.counts.sum()),
        temperature(head, probabilities),
        reliability(head, probabilities),
        reliability(head, cross_scaled(head, probabilities)),
    )


def reliability(head: HeadLabels, probabilities: NDArray[Any], bins: int = BINS) -> Reliability:
    """Of the images whose label is known. probabilities: (N, classes)."""
    if head.multi_label:
        known = head.labels >= 0
        single = np.asarray(probabilities)[known]
        confidence, right = np.maximum(single, 1 - single), (single > 0.5) == (head.labels[known] == 1)
    else:
        rows = np.asarray(probabilities)[head.known]
        confidence, right = rows.max(axis=1), rows.argmax(axis=1) == head.labels[head.known]
    # A confidence on an edge is in the bin below it; rounding may lift one a little above 1.
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    numbers = np.bincount(place, minlength=bins).tolist()
    sums = [np.bincount(place, each.astype(float), bins).tolist() for each in (confidence, right)]
    found = []
    for index, number in enumerate(numbers):
        means = (each[index] / number if number else None for each in sums)
        found.append(ReliabilityBin(index / bins, (index + 1) / bins, number, *means))
    apart = sum(abs(sure - hits) for sure, hits in zip(*sums, strict=True))
    ece = apart / len(place) if len(place) else float("nan")
    return Reliability(tuple(found), ece, _cross_entropy(head, probabilities))


def temperature(head: HeadLabels, probabilities: NDArray[Any]) -> float:
    """The temperature with the lowest cross entropy, within 0.05 and 20; 1 where no label is known."""
    from scipy.optimize import minimize_scalar

    known, logits = _known(head, probabilities)
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


def _known(head: HeadLabels, probabilities: NDArray[Any]) -> tuple[HeadLabels, NDArray[np.float64]]:
    """The head, and the logarithms of its probabilities, for the images of which any label is known."""
    return HeadLabels(head.name, head.classes, head.labels[head.known]), _log(probabilities)[head.known]


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


def _cross_entropy(head: HeadLabels, probabilities: NDArray[Any]) -> float:
    known, logs = _known(head, probabilities)
    return _loss(known, _softened(known, logs, 1.0)) if len(logs) else float("nan")


def _loss(head: HeadLabels, logs: _Logs) -> float:
    if head.multi_label:
        present, absent = logs
        known = head.labels >= 0
        return float(-np.where(head.labels == 1, present, absent)[known].mean())
    return float(-logs[0][np.arange(len(head.labels)), head.labels].mean())
