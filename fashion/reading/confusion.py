"""Which classes of an attribute are taken for which, from recorded predictions and labels."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fashion.errors import Problem, UserError
from fashion.reading.predicted import Head, head_labels
from fashion.statistics.outcomes import HeadLabels, outcomes
from fashion.statistics.resampling import weighted

Counts = NDArray[np.int64]


class ClassResult(NamedTuple):
    """One class. images: those that are of it. predicted: those that are taken for it. right: those of it that are
    taken for it."""

    name: str
    images: int
    predicted: int
    right: int

    @property
    def recall(self) -> float | None:
        """The share of its images that are found; None without any."""
        return self.right / self.images if self.images else None

    @property
    def precision(self) -> float | None:
        """The share of what is taken for it that is of it; None where nothing is."""
        return self.right / self.predicted if self.predicted else None


class Mistake(NamedTuple):
    """Images of the class `true` that are taken for another one."""

    true: str
    predicted: str
    images: int


@dataclass(frozen=True, eq=False)
class Confusion:
    """An attribute's results on N labelled images. classes: one result for each class, in order. counts: (K, K) images,
    the true class by rows and the predicted one by columns; None for a multi-label attribute, where an image may be of
    several classes. labels: how many labels were compared; missing: images without any. balanced_accuracy: as reports
    have it; None where no label is known."""

    attribute: str
    classes: tuple[ClassResult, ...]
    counts: Counts | None
    labels: int
    right: int
    missing: int
    balanced_accuracy: float | None

    @property
    def accuracy(self) -> float | None:
        return self.right / self.labels if self.labels else None

    def mistakes(self) -> list[Mistake]:
        """What is taken for what, the most frequent first; nothing for a multi-label attribute."""
        if self.counts is None:
            return []
        names = [each.name for each in self.classes]
        wrong = self.counts - np.diag(np.diag(self.counts))
        pairs = sorted(zip(*np.nonzero(wrong), strict=True), key=lambda at: (-wrong[at], at))
        return [Mistake(names[true], names[predicted], int(wrong[true, predicted])) for true, predicted in pairs]


def confusion(head: Head) -> Confusion:
    """What the predictions of an attribute are worth. The most probable class counts, of equal ones the first; of a
    multi-label attribute each class with a probability above 0.5. Raises ValueError for a head without labels."""
    given = head_labels(head)
    labels, number, missing = given.labels, given.classes, int((~given.known).sum())
    balanced = _balanced_accuracy(given, head)
    if given.multi_label:
        known = labels >= 0
        true, found = labels == 1, (head.probabilities > 0.5) & known
        results = zip(head.classes, true.sum(0), found.sum(0), (true & found).sum(0), strict=True)
        agreed = int(((true == found) & known).sum())
        classes = tuple(_result(*each) for each in results)
        return Confusion(head.name, classes, None, int(known.sum()), agreed, missing, balanced)
    pairs = labels[given.known] * number + head.probabilities.argmax(axis=1)[given.known]
    counts = np.bincount(pairs, minlength=number * number).reshape(number, number).astype(np.int64)
    results = zip(head.classes, counts.sum(1), counts.sum(0), np.diag(counts), strict=True)
    classes = tuple(_result(*each) for each in results)
    return Confusion(head.name, classes, counts, int(counts.sum()), int(np.trace(counts)), missing, balanced)


def _balanced_accuracy(labels: HeadLabels, head: Head) -> float | None:
    if not labels.known.any():
        return None
    found = weighted(outcomes([labels], [[head.probabilities]]), np.ones((len(labels.labels), 1)))
    return float(found["val_balanced_accuracy"][0, 0])


def named_attribute(names: Sequence[str], word: str, place: str) -> int:
    """The place in `names` of the attribute that is meant. Raises UserError, with near names, where there is none."""
    if word in names:
        return names.index(word)
    near = difflib.get_close_matches(word.lower(), {name.lower(): name for name in names}, 1, 0.5)
    meant = [name for name in names if near and name.lower() == near[0]]
    fix = f"Did you mean {meant[0]}?" if meant else f"There are: {', '.join(names)}"
    raise UserError(Problem(place, "there is no such attribute", repr(word), fix))


def _result(name: str, images: int, predicted: int, right: int) -> ClassResult:
    return ClassResult(name, int(images), int(predicted), int(right))
