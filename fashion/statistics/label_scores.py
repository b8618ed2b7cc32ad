"""How well one class is told from everything else: average precision and F1, also on images that were drawn again.

Both ignore the images that neither have the class nor are said to have it, which accuracy counts as right: of a class
that one image in a hundred has, a model that never names it is right in 99 %.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fashion.statistics.outcomes import HeadLabels
from fashion.statistics.resampling import DRAWS, SEED, drawn_weights, interval_ends
from fashion.statistics.results import LEAST_IMAGES, Interval


@dataclass(frozen=True)
class LabelScore:
    """One class of a multi-label head.

    images: of how many images it is known whether they have it; having: how many do; named: of how many the model says
    so. average_precision: 0 where no image has it; a model that guesses reaches having / images. f1: of the decisions
    at a probability of 0.5. Neither interval is reliable with fewer than 20 images that have the class, or that don't.
    """

    images: int
    having: int
    named: int
    average_precision: Interval
    f1: Interval


def label_scores(
    head: HeadLabels, probabilities: NDArray[Any], draws: int = DRAWS, seed: int = SEED
) -> tuple[LabelScore, ...]:
    """Of each class of a multi-label head, with intervals by the bootstrap over images. probabilities: (N, classes),
    each class's own."""
    classes = [_OneClass(head.labels[:, k], probabilities[:, k]) for k in range(head.classes)]
    for weights in drawn_weights(len(probabilities), draws, seed):  # a part of them at a time, of all classes
        for each in classes:
            each.draw(weights)
    return tuple(each.score() for each in classes)


class _OneClass:
    """The images of which it is known whether they have one class. labels, probabilities: (N,)."""

    def __init__(self, labels: NDArray[np.int64], probabilities: NDArray[Any]) -> None:
        self.known = labels >= 0
        self.holds, self.scores = labels[self.known] == 1, probabilities[self.known]
        self.named = self.scores > 0.5
        self.drawn: list[NDArray[np.float64]] = []

    def draw(self, weights: NDArray[np.float32]) -> None:
        known = weights[self.known]
        told = known[self.holds].sum(axis=0) > 0  # a draw without any image of the class tells nothing of it
        self.drawn.append(self.values(known[:, told]))

    def values(self, weights: NDArray[Any]) -> NDArray[np.float64]:
        """(2, B) of both metrics."""
        scores = average_precision(self.holds, self.scores, weights), f1(self.holds, self.named, weights)
        return np.stack(scores)

    def score(self) -> LabelScore:
        images, having = len(self.holds), int(self.holds.sum())
        reliable = min(having, images - having) >= LEAST_IMAGES
        values = self.values(np.ones((images, 1)))
        drawn = np.concatenate([*self.drawn, *([] if having else [values])], axis=1)
        low, high = interval_ends(drawn)
        both = (
            Interval(value, min(float(low[place]), value), max(float(high[place]), value), reliable)
            for place, value in enumerate(values[:, 0].tolist())
        )
        return LabelScore(images, having, int(self.named.sum()), *both)


def average_precision(holds: NDArray[np.bool_], scores: NDArray[Any], weights: NDArray[Any]) -> NDArray[np.float64]:
    """The sum over thresholds of the gain in recall times the precision there, (B,) under B weightings of the images.

    holds: (n,) whether a score should be high; scores: (n,), equal ones share a threshold; weights: (n, B), not
    negative. 0 where no image that counts should have a high score.
    """
    if not len(holds):
        return np.zeros(weights.shape[1])
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    drawn = weights[order].astype(np.float64)
    held = (drawn * holds[order, None]).cumsum(axis=0)[last]
    above = drawn.cumsum(axis=0)[last]
    precision = held / np.where(above > 0, above, 1)
    gained = np.diff(held, axis=0, prepend=0.0)
    found: NDArray[np.float64] = (gained * precision).sum(axis=0) / np.where(held[-1] > 0, held[-1], 1)
    return found


def f1(holds: NDArray[np.bool_], decided: NDArray[np.bool_], weights: NDArray[Any]) -> NDArray[np.float64]:
    """The harmonic mean of precision and recall of decisions (n,), (B,) under B weightings (n, B) of the images; 0
    where there is nothing to find and nothing was said."""
    right = (holds & decided).astype(np.float64) @ weights
    either = (holds.astype(np.float64) + decided) @ weights
    found: NDArray[np.float64] = 2 * right / np.where(either > 0, either, 1)
    return found
