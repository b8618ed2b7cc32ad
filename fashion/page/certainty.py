"""How sure the page is: intervals, the tied trials, the corrected best, calibration, paired differences.

Every panel takes its certainty from here and nowhere else. All of it is resampling of the validation images (Efron and
Tibshirani 1993): images and not cells, since the heads of one image err together, and the same images for every trial,
since trials err on the same ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fashion.api.recorded_run import RecordedRun
from fashion.api.validation import ValidationPredictions
from fashion.data.lists import MISSING
from fashion.errors import RunError
from fashion.record.ranking import ranking

RESAMPLES = 1000
LEVEL = 0.95
MOST = 200  # trials that are compared, the best first: further ones are neither tied nor looked at
BINS = 10  # of confidence
FEW = 20  # images of a class, below which an interval covers too little to be trusted
SEED = 0
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PageInterval:
    """A 95 % interval."""

    low: float
    high: float


@dataclass(frozen=True)
class PageCertainty:
    """How sure one can be of a run's winner.

    images: validation images that were resampled. losses, accuracies: trial -> interval of val_loss and val_accuracy at
    its best epoch. tied: the trials that can't be told from the winner at 5 %, the winner among them. corrected_loss,
    corrected_accuracy: what to expect of the winner on new images, the choice among trials allowed for; None where it
    is not known. missing: why nothing is known; empty where it is.
    """

    images: int = 0
    losses: Mapping[int, PageInterval] | None = None
    accuracies: Mapping[int, PageInterval] | None = None
    tied: frozenset[int] = frozenset()
    corrected_loss: float | None = None
    corrected_accuracy: float | None = None
    missing: str = ""

    def loss_of(self, trial: int) -> PageInterval | None:
        return (self.losses or {}).get(trial)

    def accuracy_of(self, trial: int) -> PageInterval | None:
        return (self.accuracies or {}).get(trial)


@dataclass(frozen=True)
class ConfidenceBin:
    """Images whose most probable class has a probability in one tenth of [0, 1]. count may be 0: then both are NaN."""

    confidence: float
    accuracy: float
    count: int


@dataclass(frozen=True)
class PageCalibration:
    """Reliability before and after temperature scaling (Guo et al. 2017). temperature: above 1 for a model that is too
    sure of itself. error: the expected calibration error, in [0, 1]."""

    temperature: float
    before: tuple[ConfidenceBin, ...]
    after: tuple[ConfidenceBin, ...]
    error_before: float
    error_after: float


@dataclass(frozen=True)
class PageDifference:
    """What the second of two models has more than the first on the same images, with its interval."""

    metric: str
    difference: float
    interval: PageInterval

    @property
    def told_apart(self) -> bool:
        return not self.interval.low <= 0 <= self.interval.high


def certainty_of(run: RecordedRun) -> PageCertainty:
    """From the validation predictions of the run's trials. Trials whose files are missing are left out."""
    ranked = ranking(run.record, MOST)
    if not ranked:
        return PageCertainty(missing="no trial has a finite val_loss yet")
    losses: list[Floats] = []
    rights: list[Floats] = []
    numbers: list[int] = []
    images: tuple[str, ...] = ()
    missing = ""
    for each in ranked:
        try:
            found = run.predictions(each.trial)
        except RunError as error:
            missing = missing or str(error.problems[0].rule)
            if not numbers:
                break  # nothing is known of the winner itself
            continue
        if found.labels_missing:
            return PageCertainty(missing=found.labels_missing)
        if images and found.images != images:
            continue
        images = found.images
        loss, right = per_image(found)
        losses.append(loss)
        rights.append(right)
        numbers.append(each.trial)
    if not numbers:
        return PageCertainty(missing=missing)
    return compared(numbers, np.stack(losses, 1), np.stack(rights, 1))


def compared(numbers: Sequence[int], losses: Floats, rights: Floats) -> PageCertainty:
    """numbers: of T trials, the winner first. losses, rights: (N, T) of each image the mean loss over its heads in
    nats, and the share of its labels that are right; NaN in rows of images without a label.

    Tied are those whose distance from the winner is below the 95 % quantile of the largest of all standardised
    distances under resampling (the max-t of Westfall and Young 1993), which holds for all trials at once. The corrected
    best is the bootstrap of the selection itself: chosen on the images that were drawn, scored on those that were not
    (Tsamardinos et al. 2018). The choice of each trial's epoch is not allowed for: other epochs' predictions are not
    kept.
    """
    known = np.isfinite(losses).all(axis=1)
    losses, rights = losses[known], rights[known]
    images = len(losses)
    if images < 2:
        return PageCertainty(images, missing="fewer than two validation images have labels")
    drawn = _draws(images)
    loss_means, right_means = drawn @ losses / images, drawn @ rights / images
    loss_ends, right_ends = _ends(loss_means), _ends(right_means)
    behind = losses.mean(axis=0) - losses[:, 0].mean()
    moved = (loss_means - loss_means[:, :1]) - behind
    spread = np.maximum(moved.std(axis=0), 1e-12)
    limit = np.quantile((moved / spread)[:, 1:].max(axis=1), LEVEL) if len(numbers) > 1 else 0.0
    tied = {number for number, distance in zip(numbers, behind / spread, strict=True) if distance <= limit}
    rest = (drawn == 0).astype(float)
    size = rest.sum(axis=1)
    usable = size > 0
    chosen = loss_means.argmin(axis=1)[:, None]
    outside = [np.take_along_axis(rest @ values, chosen, 1)[usable, 0] / size[usable] for values in (losses, rights)]
    return PageCertainty(
        images,
        {number: PageInterval(*map(float, ends)) for number, ends in zip(numbers, loss_ends, strict=True)},
        {number: PageInterval(*map(float, ends)) for number, ends in zip(numbers, right_ends, strict=True)},
        frozenset({*tied, numbers[0]}),
        float(outside[0].mean()),
        float(outside[1].mean()),
    )


def per_image(found: ValidationPredictions) -> tuple[Floats, Floats]:
    """(N,) of each image the mean cross entropy over its labelled heads in nats, and the share of its labels that are
    predicted; NaN for an image without a label. Multi-label attributes are left out."""
    size = len(found)
    loss, right, heads = np.zeros(size), np.zeros(size), np.zeros(size)
    for each in found.attributes:
        if each.labels is None or each.labels.ndim != 1:
            continue
        known = each.labels != MISSING
        rows = np.flatnonzero(known)
        probability = each.probabilities[rows, each.labels[rows]].astype(np.float64)
        loss[rows] -= np.log(np.maximum(probability, 1e-12))
        right[rows] += each.predicted[rows] == each.labels[rows]
        heads += known
    with np.errstate(invalid="ignore", divide="ignore"):
        return loss / heads, right / heads


def share_interval(values: NDArray[np.bool_]) -> PageInterval:
    """The interval of a share. values: (N,) whether it holds for each image; NaN ends for none."""
    if not len(values):
        return PageInterval(np.nan, np.nan)
    return PageInterval(*map(float, _ends(_draws(len(values)) @ values[:, None] / len(values))[0]))


def gain_interval(right: NDArray[np.bool_], baseline: NDArray[np.bool_]) -> PageInterval:
    """The interval of the difference between two shares on the same images, of the first less the second."""
    gain = right.astype(float) - baseline.astype(float)
    return PageInterval(*map(float, _ends(_draws(len(gain)) @ gain[:, None] / len(gain))[0]))


def balanced_accuracy(right: NDArray[np.bool_], labels: NDArray[np.int64]) -> tuple[float, PageInterval]:
    """The mean over the classes that occur of the share that is right, and its interval. Both (N,)."""
    classes = np.unique(labels)
    members = (labels[:, None] == classes).astype(float)
    drawn = _draws(len(labels))
    with np.errstate(invalid="ignore"):
        shares = drawn @ (members * right[:, None]) / (drawn @ members)
    means = np.nanmean(shares, axis=1, keepdims=True)
    value = float(((members * right[:, None]).sum(axis=0) / members.sum(axis=0)).mean())
    return value, PageInterval(*map(float, _ends(means)[0]))


def calibration(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> PageCalibration:
    """(N, classes) probabilities and (N,) labels, all known. The temperature has the least cross entropy on these very
    images, so that "after" is what scaling can reach, not what it will reach on others."""
    logs = np.log(np.maximum(probabilities.astype(np.float64), 1e-12))

    def scaled(temperature: float) -> Floats:
        values = logs / temperature
        values -= values.max(axis=1, keepdims=True)
        values = np.exp(values)
        result: Floats = values / values.sum(axis=1, keepdims=True)
        return result

    def loss(temperature: float) -> float:
        return float(-np.log(np.maximum(scaled(temperature)[np.arange(len(labels)), labels], 1e-12)).mean())

    low, high = np.log(0.1), np.log(10.0)
    for _ in range(3):  # each time a tenth as wide; the cross entropy has one minimum in the inverse temperature
        tried = np.linspace(low, high, 25)
        best = int(np.argmin([loss(float(np.exp(each))) for each in tried]))
        low, high = tried[max(best - 1, 0)], tried[min(best + 1, len(tried) - 1)]
    temperature = float(np.exp((low + high) / 2))
    before, after = _bins(np.exp(logs), labels), _bins(scaled(temperature), labels)
    return PageCalibration(temperature, before, after, _error(before), _error(after))


def paired_differences(first: ValidationPredictions, second: ValidationPredictions) -> tuple[PageDifference, ...]:
    """What the second has more in val_accuracy, val_loss and each attribute's accuracy, over the images of both.

    Empty where they have no labelled image, or no attribute, in common."""
    rows = {image: row for row, image in enumerate(second.images)}
    both = [(row, rows[image]) for row, image in enumerate(first.images) if image in rows]
    if len(both) < 2 or first.labels_missing or second.labels_missing:
        return ()
    ours, theirs = map(np.array, zip(*both, strict=True))
    pairs: list[tuple[str, Floats, Floats]] = []
    if [(each.name, each.classes) for each in first.attributes] == [(e.name, e.classes) for e in second.attributes]:
        (loss_a, right_a), (loss_b, right_b) = per_image(first), per_image(second)
        pairs += [("val_accuracy", right_a[ours], right_b[theirs]), ("val_loss", loss_a[ours], loss_b[theirs])]
    others = {each.name: each for each in second.attributes}
    for each in first.attributes:
        other = others.get(each.name)
        if other is None or other.classes != each.classes or each.labels is None or other.labels is None:
            continue
        if each.labels.ndim != 1 or not np.array_equal(each.labels[ours], other.labels[theirs]):
            continue
        known = each.labels[ours] != MISSING
        left, right = ((one.predicted == one.labels)[at] for one, at in ((each, ours), (other, theirs)))
        pairs.append((each.name, np.where(known, left, np.nan), np.where(known, right, np.nan)))
    found = []
    for name, before, after in pairs:
        gain = after - before
        gain = gain[np.isfinite(gain)]
        if len(gain) > 1:
            ends = _ends(_draws(len(gain)) @ gain[:, None] / len(gain))[0]
            found.append(PageDifference(name, float(gain.mean()), PageInterval(*map(float, ends))))
    return tuple(found)


def _draws(images: int) -> Floats:
    """(RESAMPLES, images) how often each image was drawn; the same each time, so that pages agree."""
    chances = np.full(images, 1 / images)
    return np.random.default_rng(SEED).multinomial(images, chances, RESAMPLES).astype(np.float64)


def _ends(means: Floats) -> Floats:
    """(columns, 2) of (resamples, columns)."""
    ends: Floats = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0).T
    return ends


def _bins(probabilities: Floats, labels: NDArray[np.int64]) -> tuple[ConfidenceBin, ...]:
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    index = np.minimum((confidence * BINS).astype(int), BINS - 1)
    found = []
    for each in range(BINS):
        inside = index == each
        empty = not inside.any()
        found.append(
            ConfidenceBin(
                np.nan if empty else float(confidence[inside].mean()),
                np.nan if empty else float(right[inside].mean()),
                int(inside.sum()),
            )
        )
    return tuple(found)


def _error(bins: Sequence[ConfidenceBin]) -> float:
    total = sum(each.count for each in bins)
    return sum(each.count * abs(each.confidence - each.accuracy) for each in bins if each.count) / total
