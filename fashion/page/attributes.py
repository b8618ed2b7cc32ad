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
from fashion.statistics.calibration import Calibration, calibration
from fashion.statistics.outcomes import outcomes
from fashion.statistics.resampling import difference, intervals, resample
from fashion.statistics.results import LEAST_IMAGES, Difference, Interval


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
    accuracy: Interval
    majority: str
    majority_accuracy: float
    gain: Difference
    balanced: Interval
    confusion: NDArray[np.int64]
    calibration: Calibration
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
    head = head_labels(each)
    counted, calibrated = confusion(each), calibration(head, each.probabilities)
    if counted.counts is None or calibrated is None:
        return None
    majority = max(range(head.classes), key=lambda index: train[index])  # the first of equals, as `best` has it
    always = np.zeros_like(each.probabilities)
    always[:, majority] = 1
    resampled = resample(outcomes([head], [[each.probabilities], [always]]))
    own, other = intervals(resampled)
    return AttributeResult(
        each.name,
        each.classes,
        counted.labels,
        own["val_accuracy"],
        each.classes[majority],
        other["val_accuracy"].value,
        difference(resampled, "val_accuracy", 0, 1),
        own["val_balanced_accuracy"],
        counted.counts,
        calibrated,
        tuple(found.name for found in counted.classes if found.images < LEAST_IMAGES),
    )
