"""The bootstrap over images: every metric of every model on images drawn with replacement, by matrix products.

Images are drawn and not labels, since the labels of one image are wrong together. All models see the same draws, so
that the difference of two of them is a paired one (Efron and Tibshirani 1993, An Introduction to the Bootstrap).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fashion.statistics.outcomes import Outcomes
from fashion.statistics.results import LEAST_IMAGES, LEVEL, Difference, Interval

DRAWS = 999  # with one more, 2.5 and 5 % of them are whole numbers
SEED = 0
_AT_ONCE = 1 << 24  # weights that are held at a time

Values = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class Resampled:
    """The metrics of T models, by the names that reports have: on the images as they are, (T,) float64, and on B draws
    of as many images, (T, B) float32. A draw without any known label of a head is NaN for all models alike."""

    outcomes: Outcomes
    values: Values
    draws: Mapping[str, NDArray[np.float32]]

    @property
    def metrics(self) -> tuple[str, ...]:
        return tuple(self.values)


def resample(outcomes: Outcomes, draws: int = DRAWS, seed: int = SEED) -> Resampled:
    """Draw N of the N images so many times. The same seed gives the same draws, whatever the models."""
    images = outcomes.images
    values = {name: found[:, 0] for name, found in weighted(outcomes, np.ones((images, 1))).items()}
    found: dict[str, list[NDArray[Any]]] = {name: [] for name in values}
    for weights in drawn_weights(images, draws, seed):
        for name, part in weighted(outcomes, weights).items():
            found[name].append(part)
    return Resampled(outcomes, values, {name: np.concatenate(parts, axis=1) for name, parts in found.items()})


def drawn_weights(images: int, draws: int = DRAWS, seed: int = SEED) -> Iterator[NDArray[np.float32]]:
    """How often each image was drawn, (N, b) float32: as many draws at a time as fit into memory, `draws` in all."""
    random = np.random.default_rng(seed)
    step = max(_AT_ONCE // max(images, 1), 1)
    for start in range(0, draws, step):
        count = min(step, draws - start)
        drawn = random.integers(0, images, (count, images)) + images * np.arange(count)[:, None]
        yield np.bincount(drawn.ravel(), minlength=count * images).reshape(count, images).T.astype(np.float32)


def weighted(outcomes: Outcomes, weights: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Every metric, (T, B), under B weightings of the images. weights: (N, B) float32 or float64, not negative.

    Where labels are missing, each head's loss and recalls are those of the known ones, `val_accuracy` counts the known
    labels of all heads, and `val_exact_match` the images of which all labels are known; it is left out where there is
    no such image. A multi-label head has as many labels as classes.
    """
    kind = weights.dtype
    recalls: Any = 0.0
    right: Any = 0.0
    labelled: Any = 0.0
    accuracies: dict[str, NDArray[Any]] = {}
    with np.errstate(invalid="ignore", divide="ignore"):  # 0 / 0 is NaN, as it should be
        for index, head in enumerate(outcomes.heads):
            count = head.counts.astype(kind) @ weights
            recall, hits = _recalls(outcomes, index, weights)
            recalls, right, labelled = recalls + recall, right + hits, labelled + count
            accuracies[f"val_accuracy/{head.name}"] = hits / count
        heads = len(outcomes.heads)
        exact = {}
        if outcomes.complete.any():
            whole = outcomes.complete.astype(kind) @ weights
            exact["val_exact_match"] = (outcomes.exact.astype(kind) @ weights) / whole
        return {
            "val_loss": mean_loss(outcomes, weights),
            "val_accuracy": right / labelled,
            "val_balanced_accuracy": recalls / heads,
            **exact,
            **accuracies,
        }


def mean_loss(outcomes: Outcomes, weights: NDArray[Any]) -> NDArray[Any]:
    """`val_loss` alone, (T, B), of `weighted`: the mean over the heads of that over their known labels."""
    kind = weights.dtype
    parts: list[NDArray[Any]] = []
    complete: NDArray[np.float32] | None = None  # of heads whose labels are all known: one product for all of them
    with np.errstate(invalid="ignore", divide="ignore"):
        for head, loss in zip(outcomes.heads, outcomes.losses, strict=True):
            if (head.columns >= 0).all():
                each = loss / np.float32(head.columns.shape[1])
                complete = each if complete is None else complete + each
            else:
                parts.append((loss.astype(kind) @ weights) / (head.counts.astype(kind) @ weights))
        if complete is not None:
            parts.append((complete.astype(kind) @ weights) / weights.sum(axis=0))
    mean: NDArray[Any] = np.sum(parts, axis=0) / len(outcomes.heads)
    return mean


def _recalls(outcomes: Outcomes, index: int, weights: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """A head's mean recall over the classes that occur, (T, B), and its hits. Of a multi-label head the recall is the
    mean over its classes of the mean recall of 0 and 1."""
    head, hits = outcomes.heads[index], outcomes.hits[index]
    means: Any = 0.0
    all_hits: Any = 0.0
    for column, labels in zip(hits, head.columns.T, strict=True):
        recalls: Any = 0.0
        present: Any = 0.0
        for value in range(2 if head.multi_label else head.classes):
            of_class = np.flatnonzero(labels == value)
            if not len(of_class):
                continue
            part = weights[of_class]
            found, count = column[:, of_class].astype(weights.dtype) @ part, part.sum(axis=0)
            recalls = recalls + found / np.where(count > 0, count, 1)
            present, all_hits = present + (count > 0), all_hits + found
        means = means + recalls / present
    return means / len(hits), all_hits


def intervals(resampled: Resampled) -> list[dict[str, Interval]]:
    """For each model the percentile interval of each metric.

    Where everything, or nothing, was right, no draw differs: the open end is then the exact bound of Clopper and
    Pearson (1934) for as many images, of the balanced accuracy for as many as the rarest class has.
    """
    found: list[dict[str, Interval]] = [{} for _ in range(resampled.outcomes.models)]
    for name, values in resampled.values.items():
        low, high = interval_ends(resampled.draws[name])
        reliable, images = _footing(resampled.outcomes, name)
        bound = ((1 - LEVEL) / 2) ** (1 / max(images, 1))
        for model, value in enumerate(values.tolist()):
            ends = float(low[model]), float(high[model])
            if not name.startswith("val_loss") and value in (0.0, 1.0):
                ends = (bound, 1.0) if value else (0.0, 1 - bound)
            # float32 may put an end of an interval without width on the wrong side of the value
            found[model][name] = Interval(value, min(ends[0], value), max(ends[1], value), reliable)
    return found


def difference(resampled: Resampled, metric: str, first: int, second: int, level: float = LEVEL) -> Difference:
    """What the first model has more of a metric than the second one, with the paired percentile interval."""
    values, draws = resampled.values[metric], resampled.draws[metric]
    low, high = interval_ends((draws[first] - draws[second])[None], level)
    value = float(values[first] - values[second])
    return Difference(value, min(float(low[0]), value), max(float(high[0]), value))


def _footing(outcomes: Outcomes, metric: str) -> tuple[bool, int]:
    """Whether each class that a metric is about has images enough, and on how many images the metric rests."""
    name = metric.removeprefix("val_accuracy/")
    heads = [head for head in outcomes.heads if metric.startswith("val_accuracy/") is False or head.name == name]
    least = min(head.least for head in heads)
    images = least if metric == "val_balanced_accuracy" else min(int(head.known.sum()) for head in heads)
    return least >= LEAST_IMAGES, images


def interval_ends(draws: NDArray[Any], level: float = LEVEL) -> tuple[NDArray[Any], NDArray[Any]]:
    """The ends of the percentile intervals of (T, B) draws: of B + 1 parts, by default 2.5 % lie below and above."""
    draws = draws[:, np.isfinite(draws[0])]
    count = draws.shape[1]
    if not count:
        unknown = np.full(len(draws), np.nan)
        return unknown, unknown
    low = max(round((count + 1) * (1 - level) / 2) - 1, 0)
    parts = np.partition(draws, (low, count - 1 - low), axis=1)
    return parts[:, low], parts[:, count - 1 - low]
