"""Whether a model is as often right as it says: expected calibration error, a reliability table, and what dividing the
logits by one temperature would make of them (Guo et al. 2017, "On Calibration of Modern Neural Networks")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fashion.data.lists import MISSING
from fashion.reading.paired import LEAST, Head

BINS = 15  # of equal width, as Guo et al. have them
BOUNDS = (0.05, 20.0)  # of a temperature

Floats = NDArray[np.float64]


class ReliabilityBin(NamedTuple):
    """The predictions whose confidence is above `low` and at most `high`: how many, how confident and how often right
    on average (None for none)."""

    low: float
    high: float
    number: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Calibration:
    """ece: the expected calibration error, from 0 to 1, over BINS bins. nll: the mean cross entropy. tempered_ece,
    tempered_nll and tempered_bins: the same with the logits divided by a temperature, which for each half of the images
    was fitted on the other half, so that it is not judged on what it was fitted to. temperature: fitted on all of them;
    above 1 the model is too confident."""

    images: int
    ece: float
    nll: float
    bins: tuple[ReliabilityBin, ...]
    temperature: float
    tempered_ece: float
    tempered_nll: float
    tempered_bins: tuple[ReliabilityBin, ...]


def calibration(head: Head) -> Calibration | None:
    """The calibration of an attribute's most probable classes on its labelled images; of a multi-label attribute that
    of each class's yes or no. None with fewer than two labels."""
    labels = head.labels
    if labels is None:
        return None
    probabilities = np.maximum(head.probabilities.astype(float), float(LEAST))
    if labels.ndim == 2:
        known = labels != MISSING
        yes, true = probabilities[known], labels[known]
        probabilities = np.stack([np.maximum(1.0 - yes, float(LEAST)), yes], axis=1)
    else:
        known = labels != MISSING
        probabilities, true = probabilities[known], labels[known]
    if len(true) < 2:
        return None
    logs = np.log(probabilities)
    tempered = np.empty_like(logs)
    for half in (slice(0, None, 2), slice(1, None, 2)):
        other = slice(1 - half.start, None, 2)
        tempered[half] = _log_softmax(logs[half] / fit_temperature(logs[other], true[other]))
    bins, tempered_bins = reliability(np.exp(_log_softmax(logs)), true), reliability(np.exp(tempered), true)
    return Calibration(
        len(true), expected_error(bins), _nll(logs, true), bins, fit_temperature(logs, true),
        expected_error(tempered_bins), _nll(tempered, true), tempered_bins,
    )  # fmt: skip


def reliability(probabilities: Floats, labels: NDArray[np.int64]) -> tuple[ReliabilityBin, ...]:
    """BINS bins of the confidence in the most probable class. probabilities: (N, K); labels: (N,), none missing."""
    confidence = probabilities.max(axis=1)
    right = (probabilities.argmax(axis=1) == labels).astype(float)
    edges = np.linspace(0.0, 1.0, BINS + 1)
    # A confidence on an edge is in the bin below it; rounding may lift one a little above 1.
    at = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, BINS - 1)
    numbers = np.bincount(at, minlength=BINS)
    sums = [np.bincount(at, weights=values, minlength=BINS) for values in (confidence, right)]
    return tuple(
        ReliabilityBin(
            float(edges[index]),
            float(edges[index + 1]),
            int(number),
            *(float(each[index] / number) if number else None for each in sums),
        )
        for index, number in enumerate(numbers)
    )


def expected_error(bins: tuple[ReliabilityBin, ...]) -> float:
    """The mean distance of confidence and accuracy, each bin by its share of the predictions."""
    total = sum(each.number for each in bins)
    gaps = (
        each.number * abs(each.confidence - each.accuracy)
        for each in bins
        if each.confidence is not None and each.accuracy is not None
    )
    return sum(gaps) / total if total else 0.0


def fit_temperature(logs: Floats, labels: NDArray[np.int64]) -> float:
    """The temperature with the least cross entropy, within BOUNDS. logs: (N, K) logarithms of probabilities, or
    logits. The loss is convex in the temperature's inverse."""
    from scipy.optimize import minimize_scalar

    bounds = (1.0 / BOUNDS[1], 1.0 / BOUNDS[0])
    found = minimize_scalar(lambda inverse: _nll(logs * inverse, labels), bounds=bounds, method="bounded")
    return float(1.0 / found.x)


def _nll(logits: Floats, labels: NDArray[np.int64]) -> float:
    return float(-_log_softmax(logits)[np.arange(len(labels)), labels].mean())


def _log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max(axis=1, keepdims=True)
    found: Floats = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return found
