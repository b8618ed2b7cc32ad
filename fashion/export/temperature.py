"""Temperature scaling (Guo et al. 2017): one number per head by which its logits are divided, so that its probabilities
are as often right as they say."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

LEAST, MOST = 0.05, 20.0  # a temperature beyond means that the head tells nothing, or everything


def fit_temperature(probabilities: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    """The temperature with the lowest cross entropy, from recorded probabilities (N, classes) in [0, 1].

    labels: (N,) class indices, negative where the label is not known: such images don't count. 1.0 where no image
    counts. The cross entropy is convex in 1/T, so that a bounded search finds its only minimum.
    """
    known = labels >= 0
    if not known.any():
        return 1.0
    # float32's smallest number in place of 0: a class that was ruled out stays so, at a finite cost.
    logs = np.log(np.maximum(probabilities[known].astype(np.float64), np.finfo(np.float32).tiny))
    rows, chosen = np.arange(len(logs)), labels[known]

    def loss(log: float) -> float:
        return float(-log_softmax(logs / np.exp(log), axis=1)[rows, chosen].mean())

    found = minimize_scalar(loss, bounds=(np.log(LEAST), np.log(MOST)), method="bounded", options={"xatol": 1e-7})
    return float(np.exp(found.x))
