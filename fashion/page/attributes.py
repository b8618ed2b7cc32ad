"""The winner by attribute: accuracy, confusions and reliability, from its validation predictions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fashion.api.validation import AttributePredictions, ValidationPredictions
from fashion.data.lists import MISSING
from fashion.reading.confusion import confusion
from fashion.reading.predicted import head_labels
from fashion.record.ranking import AttributeRow, attribute_table
from fashion.statistics.calibration import Calibration, calibration
from fashion.statistics.label_scores import LabelScore, label_scores
from fashion.statistics.outcomes import outcomes
from fashion.statistics.resampling import difference, intervals, resample
from fashion.statistics.results import LEAST_IMAGES, Difference, Interval


@dataclass(frozen=True, eq=False)
class AttributeResult:
    """One attribute on the validation images whose label is known.

    Shares are in [0, 1]. labels: how many are known, of a multi-label attribute one for each image and class; missing:
    how many are not. majority: the most frequent training class, of a multi-label attribute the classes that most
    training images have; majority_accuracy: always saying it. gain: of accuracy over that, on the same images.
    confusion: (classes, classes) counts, the row is the label and the column what was predicted; None for a multi-label
    attribute, which has scores: one for each class. few: the classes with fewer than 20 images, on which intervals
    can't be relied.
    """

    name: str
    classes: tuple[str, ...]
    labels: int
    missing: int
    accuracy: Interval
    majority: str
    majority_accuracy: float
    gain: Difference
    balanced: Interval
    confusion: NDArray[np.int64] | None
    scores: tuple[LabelScore, ...]
    calibration: Calibration
    few: tuple[str, ...]


@dataclass(frozen=True)
class WrongAnswer:
    """A validation image on which the model was sure and wrong. confidence: the probability of what it said. Of a
    multi-label attribute, label and predicted are a class or "not" and the class."""

    image: str
    attribute: str
    label: str
    predicted: str
    confidence: float


def attribute_results(manifest: Mapping[str, Any], found: ValidationPredictions) -> tuple[list[AttributeResult], str]:
    """Of each attribute with two labelled images; and a sentence on those that are left out."""
    if found.labels_missing:
        return [], found.labels_missing
    rows = {row.name: row for row in attribute_table(manifest, {})} if manifest["label_counts"] else {}
    results = [_result(each, rows[each.name]) for each in found.attributes if each.name in rows]
    told = [each for each in results if each is not None]
    left = sorted({each.name for each in found.attributes} - {each.name for each in told})
    return told, f"Not shown, for want of labels: {', '.join(left)}." if left else ""


def wrong_answers(found: ValidationPredictions, most: int = 24) -> list[WrongAnswer]:
    """The most confident mistakes over all attributes, one an image and the surest first."""
    rows = [row for each in found.attributes if each.labels is not None for row in _mistakes(each)]
    answers: dict[int, WrongAnswer] = {}
    for confidence, image, each, column in sorted(rows, key=lambda row: (-row[0], row[1])):
        if len(answers) == most:
            break
        if image not in answers:
            answers[image] = WrongAnswer(found.images[image], each.name, *_words(each, image, column), confidence)
    return list(answers.values())


def _mistakes(each: AttributePredictions) -> list[tuple[float, int, AttributePredictions, int]]:
    """(confidence, image, attribute, class of a multi-label one) of every wrong prediction."""
    assert each.labels is not None
    wrong = (each.predicted != each.labels) & (each.labels != MISSING)
    single = each.probabilities
    sure = np.maximum(single, 1 - single) if each.multi_label else single.max(axis=1)
    places = np.argwhere(wrong).reshape(-1, wrong.ndim).tolist()
    rows = zip(sure[wrong].tolist(), places, strict=True)
    return [(confidence, place[0], each, place[-1]) for confidence, place in rows]


def _words(each: AttributePredictions, image: int, column: int) -> tuple[str, str]:
    """What the label says, and the model."""
    assert each.labels is not None
    if each.multi_label:
        words = f"not {each.classes[column]}", each.classes[column]
        label = int(each.labels[image, column])
        return words[label], words[1 - label]
    return each.classes[each.labels[image]], each.classes[each.predicted[image]]


def _result(each: AttributePredictions, row: AttributeRow) -> AttributeResult | None:
    head = head_labels(each)
    counted, calibrated = confusion(each), calibration(head, each.probabilities)
    if calibrated is None:
        return None
    always = np.tile(np.array(row.majority, np.float32), (len(each.probabilities), 1))
    resampled = resample(outcomes([head], [[each.probabilities], [always]]))
    own, other = intervals(resampled)
    scores = label_scores(head, each.probabilities) if each.multi_label else ()
    having = [score.having for score in scores] or [found.images for found in counted.classes]
    return AttributeResult(
        each.name,
        each.classes,
        counted.labels,
        head.labels.size - counted.labels,
        own["val_accuracy"],
        row.majority_class,
        other["val_accuracy"].value,
        difference(resampled, "val_accuracy", 0, 1),
        own["val_balanced_accuracy"],
        counted.counts,
        scores,
        calibrated,
        tuple(name for name, images in zip(each.classes, having, strict=True) if images < LEAST_IMAGES),
    )
