"""Two models on the same validation images: what each metric differs by, and how sure that is.

Plain arrays in, frozen results out. Every metric is a mean of ratios of sums over images, so that a bootstrap over
images (Efron & Tibshirani 1993, ch. 13; the heads of one image stay together) is a product of matrices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fashion.data.lists import MISSING

DRAWS = 2_000  # resamples of the images; an end of a 95 % interval is then good to about 3 % of its length
AT_ONCE = 4_000_000  # cells of the matrix of weights in memory at a time
LEAST = np.finfo(np.float32).tiny  # a probability of 0 is taken for this, whose loss is finite

Floats = NDArray[np.float64]


class Head(Protocol):
    """One attribute's predictions for N images: probabilities (N, classes), labels (N,) of class indices or, for a
    multi-label attribute, (N, classes) of 0 and 1; MISSING where unknown. `AttributePredictions` is one."""

    @property
    def name(self) -> str: ...
    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def probabilities(self) -> NDArray[np.float32]: ...
    @property
    def labels(self) -> NDArray[np.int64] | None: ...


@dataclass(frozen=True, eq=False)
class MetricSums:
    """A metric as sums over images. numerators, denominators: (N, P), one column for each ratio. groups: (P,) the head
    to which a ratio belongs; the metric is the mean over heads of the mean of their ratios, those without a denominator
    left out."""

    metric: str
    numerators: Floats
    denominators: Floats
    groups: NDArray[np.int64]

    def values(self, weights: Floats) -> Floats:
        """The metric under each row of weights (B, N): how often each image counts. (B,), NaN where nothing counts."""
        above, below = weights @ self.numerators, weights @ self.denominators
        counted = below > 0
        ratios = np.divide(above, below, out=np.zeros_like(above), where=counted)
        means, there = [], []
        for group in np.unique(self.groups):
            mine = self.groups == group
            number = counted[:, mine].sum(axis=1)
            means.append(np.divide(ratios[:, mine].sum(axis=1), np.maximum(number, 1)))
            there.append(number > 0)
        heads = np.sum(there, axis=0)
        total: Floats = np.where(there, means, 0.0).sum(axis=0)
        return np.where(heads > 0, total / np.maximum(heads, 1), np.nan)


@dataclass(frozen=True)
class MetricDifference:
    """A metric of two models on the same images. difference: second minus first; low and high: the ends of its interval
    at the confidence `level`."""

    metric: str
    first: float
    second: float
    low: float
    high: float
    level: float

    @property
    def difference(self) -> float:
        return self.second - self.first

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out 0. Without it the two can't be told apart."""
        return self.low > 0 or self.high < 0


def metric_sums(heads: Sequence[Head]) -> list[MetricSums]:
    """The validation metrics that the heads' labels allow: val_loss, val_accuracy, val_balanced_accuracy,
    val_exact_match and val_accuracy/NAME. A head without labels counts in none of them. Of a multi-label attribute each
    class is a label of its own, predicted where its probability is at least 0.5."""
    parts = [_of_head(head, index) for index, head in enumerate(heads) if head.labels is not None]
    if not parts:
        return []
    right = np.concatenate([part.right for part in parts], axis=1)
    known = np.concatenate([part.known for part in parts], axis=1)
    one = np.zeros(1, np.int64)
    exact = ((right == known).all(axis=1) & known.any(axis=1)).astype(float)[:, None]
    return [
        MetricSums(
            "val_loss",
            np.stack([part.loss for part in parts], axis=1),
            np.stack([part.counted for part in parts], axis=1),
            np.arange(len(parts)),
        ),
        MetricSums("val_accuracy", right.sum(1, keepdims=True), known.sum(1, keepdims=True), one),
        MetricSums(
            "val_balanced_accuracy",
            np.concatenate([part.hits for part in parts], axis=1),
            np.concatenate([part.members for part in parts], axis=1),
            np.repeat(np.arange(len(parts)), [part.hits.shape[1] for part in parts]),
        ),
        MetricSums("val_exact_match", exact, known.any(axis=1).astype(float)[:, None], one),
        *(
            MetricSums(
                f"val_accuracy/{part.name}", part.right.sum(1, keepdims=True), part.known.sum(1, keepdims=True), one
            )
            for part in parts
        ),
    ]


def paired_differences(
    first: Sequence[MetricSums], second: Sequence[MetricSums], level: float = 0.95, seed: int = 0
) -> list[MetricDifference]:
    """Each metric that both have, with the percentile interval of its difference over resamples of the images, which
    are the same for both. The lists are of the same N images, in the same order."""
    others = {each.metric: each for each in second}
    pairs = [(each, others[each.metric]) for each in first if each.metric in others]
    if not pairs:
        return []
    images = len(pairs[0][0].numerators)
    drawn: list[list[Floats]] = [[] for _ in pairs]
    random = np.random.default_rng(seed)
    step = max(AT_ONCE // max(images, 1), 1)
    for start in range(0, DRAWS, step):
        weights = _resamples(random, min(step, DRAWS - start), images)
        for found, (one, other) in zip(drawn, pairs, strict=True):
            found.append(other.values(weights) - one.values(weights))
    all_once = np.ones((1, images))
    ends = (100 * (1 - level) / 2, 100 * (1 + level) / 2)
    differences = []
    for found, (one, other) in zip(drawn, pairs, strict=True):
        low, high = np.nanpercentile(np.concatenate(found), ends)
        mine, its = (float(each.values(all_once)[0]) for each in (one, other))
        differences.append(MetricDifference(one.metric, mine, its, float(low), float(high), level))
    return differences


def _resamples(random: np.random.Generator, draws: int, images: int) -> Floats:
    """(draws, images) how often each image is drawn when as many are drawn as there are."""
    chosen = random.integers(0, images, (draws, images)) + images * np.arange(draws)[:, None]
    return np.bincount(chosen.ravel(), minlength=draws * images).reshape(draws, images).astype(float)


@dataclass(frozen=True, eq=False)
class _HeadSums:
    """One head's part. loss, counted: (N,). right, known: (N, 1), or (N, classes) of a multi-label attribute. hits,
    members: (N, classes) by the true class."""

    name: str
    loss: Floats
    counted: Floats
    right: Floats
    known: Floats
    hits: Floats
    members: Floats


def _of_head(head: Head, index: int) -> _HeadSums:
    labels = head.labels
    assert labels is not None
    chance: NDArray[Any] = np.maximum(head.probabilities, LEAST).astype(float)
    if labels.ndim == 2:
        known = labels != MISSING
        true = labels == 1
        against = np.maximum(1.0 - head.probabilities.astype(float), LEAST)
        loss = -np.log(np.where(true, chance, against)) * known
        right = ((head.probabilities >= 0.5) == true) & known
        number = known.sum(axis=1)
        mean = loss.sum(axis=1) / np.maximum(number, 1)
        members = true & known
        return _HeadSums(head.name, mean, _float(number > 0), _float(right), _float(known), _float(right & members),
                         _float(members))  # fmt: skip
    known = labels != MISSING
    rows = np.arange(len(labels))
    safe = np.where(known, labels, 0)
    right = (head.probabilities.argmax(axis=1) == labels) & known
    members = np.zeros(head.probabilities.shape, bool)
    members[rows, safe] = known
    loss = np.where(known, -np.log(chance[rows, safe]), 0.0)
    return _HeadSums(head.name, loss, _float(known), _float(right)[:, None], _float(known)[:, None],
                     _float(members & right[:, None]), _float(members))  # fmt: skip


def _float(values: NDArray[np.bool_]) -> Floats:
    return values.astype(np.float64)
