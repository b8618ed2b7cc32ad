"""The winner by attribute: accuracy, confusions and reliability, from its validation predictions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fashion.api.validation import AttributePredictions, ValidationPredictions
from fashion.data.lists import MISSING
from fashion.page.certainty import (
    FEW,
    PageCalibration,
    PageInterval,
    balanced_accuracy,
    calibration,
    gain_interval,
    share_interval,
)


@dataclass(frozen=True, eq=False)
class AttributeResult:
    """One attribute on the validation images whose label is known.

    Shares are in [0, 1]. majority: the most frequent training class; majority_accuracy: always saying it. gain: of
    accuracy over that, on the same images. confusion: (classes, classes) counts, the row is the label and the column
    what was predicted. few: the classes with fewer than 20 images, on which intervals can't be relied.
    """

    name: str
    classes: tuple[str, ...]
    images: int
    accuracy: float
    interval: PageInterval
    majority: str
    majority_accuracy: float
    gain: PageInterval
    balanced: float
    balanced_interval: PageInterval
    confusion: NDArray[np.int64]
    calibration: PageCalibration
    few: tuple[str, ...]


@dataclass(frozen=True)
class WrongAnswer:
    """A validation image on which the model was sure and wrong. confidence: the predicted class's probability."""

    image: str
    attribute: str
    label: str
    predicted: str
    confidence: float


def attribute_results(manifest: Mapping[str, Any], found: ValidationPredictions) -> tuple[list[AttributeResult], str]:
    """Of each single-label attribute with two labelled images; and a sentence on those that are left out."""
    results: list[AttributeResult] = []
    left: list[str] = []
    counts = (manifest["label_counts"] or {}).get("train", [])
    for head, each in enumerate(found.attributes):
        result = _result(each, counts[head]) if head < len(counts) and _single(each) else None
        if result is None:
            left.append(each.name)
        else:
            results.append(result)
    sentence = f"Not shown, for want of single labels: {', '.join(left)}." if left else ""
    return results, found.labels_missing or sentence


def wrong_answers(found: ValidationPredictions, most: int = 24) -> list[WrongAnswer]:
    """The most confident mistakes over all attributes, one an image and the surest first."""
    rows: list[tuple[float, int, AttributePredictions]] = []
    for each in found.attributes:
        if not _single(each):
            continue
        assert each.labels is not None
        wrong = (each.predicted != each.labels) & (each.labels != MISSING)
        confidence = each.probabilities.max(axis=1)
        rows += [(float(confidence[row]), int(row), each) for row in np.flatnonzero(wrong)]
    rows.sort(key=lambda row: (-row[0], row[1]))
    seen: set[int] = set()
    answers: list[WrongAnswer] = []
    for confidence, row, each in rows:
        if row in seen or len(answers) == most:
            continue
        seen.add(row)
        assert each.labels is not None
        label, predicted = each.classes[each.labels[row]], each.classes[each.predicted[row]]
        answers.append(WrongAnswer(found.images[row], each.name, label, predicted, confidence))
    return answers


def _single(each: AttributePredictions) -> bool:
    """Whether every image has one class of it, or none."""
    return each.labels is not None and each.labels.ndim == 1


def _result(each: AttributePredictions, train: list[int]) -> AttributeResult | None:
    assert each.labels is not None
    known = each.labels != MISSING
    labels, predicted, probabilities = each.labels[known], each.predicted[known], each.probabilities[known]
    if len(labels) < 2:
        return None
    size = len(each.classes)
    majority = max(range(size), key=lambda index: train[index])  # the first of equally frequent ones, as `best` has it
    right, baseline = predicted == labels, labels == majority
    confusion = np.bincount(labels * size + predicted, minlength=size * size).reshape(size, size).astype(np.int64)
    balanced, balanced_interval = balanced_accuracy(right, labels)
    of_class = confusion.sum(axis=1)
    return AttributeResult(
        each.name,
        each.classes,
        len(labels),
        float(right.mean()),
        share_interval(right),
        each.classes[majority],
        float(baseline.mean()),
        gain_interval(right, baseline),
        balanced,
        balanced_interval,
        confusion,
        calibration(probabilities, labels),
        tuple(name for name, images in zip(each.classes, of_class, strict=True) if images < FEW),
    )
