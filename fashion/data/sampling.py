"""Class-balanced sampling: rare classes are drawn more often in training (`train.balanced_sampling`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fashion.data.lists import MISSING


def sampling_weights(heads: Sequence[NDArray[np.int64]], power: float) -> NDArray[np.float64]:
    """The probability (n,) with which each of n images is drawn, with replacement. heads: the labels of each
    attribute, (n,) of a single-label one, (n, classes) of a multi-label one.

    For one attribute the probability of a class is proportional to its images to the power of 1 - `power`: 0 draws all
    images alike, 1 all classes, 0.5 is square-root sampling (Kang et al. 2020, Decoupling, 3). An image of several
    attributes has the mean of what each gives it; one whose label is missing there counts as an average image.
    """
    columns = [labels.reshape(len(labels), -1).T for labels in heads]
    total = np.mean([np.mean([_of_column(each, power) for each in head], axis=0) for head in columns], axis=0)
    found: NDArray[np.float64] = total / total.sum()
    return found


def _of_column(labels: NDArray[np.int64], power: float) -> NDArray[np.float64]:
    """Of labels (n,), with a mean of 1 over those that are known."""
    known = labels != MISSING
    weights = np.ones(len(labels))
    if known.any():
        counts = np.bincount(labels[known]).astype(float)
        each = counts[labels[known]] ** -power
        weights[known] = each / each.mean()
    return weights
