"""Temperature scaling (Guo et al. 2017): one number per head by which its logits are divided, so that its probabilities
are as often right as they say."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LEAST, MOST = 0.05, 20.0  # a temperature beyond means that the head tells nothing, or everything
STEPS = 60  # golden-section steps: the interval shrinks to 1e-12 of its size


def fit_temperature(probabilities: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    """The temperature with the lowest cross entropy, from recorded probabilities (N, classes) in [0, 1].

    labels: (N,) class indices, negative where the label is not known: such images don't count. 1.0 where no image
    counts. The cross entropy is convex in 1/T, so a golden-section search over it finds the only minimum.
    """
    known = labels >= 0
    if not known.any():
        return 1.0
    with np.errstate(divide="ignore"):
        # float32's smallest number in place of 0: a class that was ruled out stays so, at a finite cost.
        logs = np.log(np.maximum(probabilities[known].astype(np.float64), np.finfo(np.float32).tiny))
    rows, chosen = np.arange(len(logs)), labels[known]

    def loss(inverse: float) -> float:
        scaled = inverse * logs
        top = scaled.max(axis=1, keepdims=True)
        total = np.log(np.exp(scaled - top).sum(axis=1)) + top[:, 0]
        return float((total - scaled[rows, chosen]).mean())

    low, high = 1.0 / MOST, 1.0 / LEAST
    ratio = (5.0**0.5 - 1.0) / 2.0
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = loss(left), loss(right)
    for _ in range(STEPS):
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = loss(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = loss(right)
    return 2.0 / (low + high)
