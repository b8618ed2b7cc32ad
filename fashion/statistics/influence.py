"""How much each image moves a metric: its influence, from which standard errors follow without any draw.

Under other weights of the images a metric moves, to first order, by the sum of each image's influence times its weight
less one (the infinitesimal jackknife: Efron and Tibshirani 1993, chapter 21). The standard error is the root of the sum
of squares. For a mean over images that is exact, and it doesn't share the chance of the bootstrap's draws.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fashion.statistics.outcomes import HeadLabels, Outcomes


def influences(outcomes: Outcomes, metric: str) -> NDArray[np.float64]:
    """(T, N) in the metric's unit; each row sums to 0. metric: a name that `weighted` has; KeyError for another."""
    heads = outcomes.heads
    if metric == "val_loss":
        parts = (_of_ratio(loss, head.counts) for head, loss in zip(heads, outcomes.losses, strict=True))
        return np.asarray(sum(parts) / len(heads), np.float64)
    if metric == "val_balanced_accuracy":
        recalls = (_of_recall(head, hits) for head, hits in zip(heads, outcomes.hits, strict=True))
        return np.asarray(sum(recalls) / len(heads), np.float64)
    if metric == "val_exact_match":
        return _of_ratio(outcomes.exact, outcomes.complete)
    right = [hits.sum(axis=0, dtype=np.int32) for hits in outcomes.hits]
    if metric == "val_accuracy":
        return _of_ratio(np.sum(right, axis=0), np.sum([head.counts for head in heads], axis=0))
    index = {f"val_accuracy/{head.name}": index for index, head in enumerate(heads)}[metric]
    return _of_ratio(right[index], heads[index].counts)


def standard_errors(influence: NDArray[np.float64]) -> NDArray[np.float64]:
    """(T, T) of the difference of each two models, made on the same images. influence: (T, N)."""
    images = influence.shape[1]
    # What all models have in common cancels in every difference; without it the digits suffice.
    own_part = influence - influence.mean(axis=0, keepdims=True)
    products = own_part @ own_part.T * (images / max(images - 1, 1))
    own = np.diag(products)
    errors: NDArray[np.float64] = np.sqrt(np.maximum(own[:, None] + own[None, :] - 2 * products, 0))
    return errors


def _of_ratio(above: NDArray[Any], below: NDArray[Any]) -> NDArray[np.float64]:
    """Of the sum of (T, N) values over that of N counts."""
    total = float(below.sum())
    values = above.astype(np.float64)
    found: NDArray[np.float64] = (values - values.sum(axis=1, keepdims=True) / total * below) / total
    return found


def _of_recall(head: HeadLabels, hits: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Of a head's mean recall over the classes that occur, as `weighted` has it."""
    found = np.zeros(hits.shape[1:])
    for column, labels in zip(hits, head.columns.T, strict=True):
        rows = [np.flatnonzero(labels == value) for value in range(2 if head.multi_label else head.classes)]
        present = [of_class for of_class in rows if len(of_class)]
        for of_class in present:
            found[:, of_class] += _of_ratio(column[:, of_class], np.ones(len(of_class))) / len(present) / len(hits)
    return found
