"""Which classes are taken for which, against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, classification_report, confusion_matrix

from fashion.reading.confusion import confusion
from tests.support.skilled_runs import Predictions

NAMES = ("v-neck", "[bold]round[/]", "none", "never")


def simulated(images: int, sharpness: float, seed: int = 0) -> Predictions:
    """Labels drawn from the probabilities themselves, which are then made sharper: calibrated at `sharpness` 1."""
    random = np.random.default_rng(seed)
    logits = np.concatenate([random.normal(size=(images, 3)) * 1.5, np.full((images, 1), -30.0)], axis=1)
    true = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (true.cumsum(1) < random.random((images, 1))).sum(1).clip(0, 2)
    sharp = np.exp(logits * sharpness)
    return Predictions("neck", NAMES, (sharp / sharp.sum(1, keepdims=True)).astype(np.float32), labels)


def test_confusion_is_that_of_scikit_learn() -> None:
    head = simulated(500, 1.0)
    assert head.labels is not None
    guessed = head.probabilities.argmax(1)
    found = confusion(head)
    assert found.counts is not None
    np.testing.assert_array_equal(found.counts, confusion_matrix(head.labels, guessed, labels=range(4)))
    wanted = classification_report(
        head.labels, guessed, labels=range(4), target_names=NAMES, output_dict=True, zero_division=0
    )
    for each in found.classes[:3]:
        assert each.recall == pytest.approx(wanted[each.name]["recall"])
        assert each.precision == pytest.approx(wanted[each.name]["precision"])
        assert each.images == wanted[each.name]["support"]
    assert (found.classes[3].recall, found.classes[3].precision) == (None, None)
    assert found.accuracy == pytest.approx((guessed == head.labels).mean())
    assert found.balanced_accuracy == pytest.approx(balanced_accuracy_score(head.labels, guessed))
    mistakes = found.mistakes()
    assert sum(each.images for each in mistakes) == 500 - found.right
    assert [each.images for each in mistakes] == sorted((each.images for each in mistakes), reverse=True)


def test_images_without_a_label_are_left_out() -> None:
    head = simulated(300, 1.0)
    assert head.labels is not None
    masked = head.labels.copy()
    masked[:100] = -1
    found = confusion(Predictions("neck", NAMES, head.probabilities, masked))
    rest = confusion(Predictions("neck", NAMES, head.probabilities[100:], masked[100:]))
    assert (found.missing, found.labels, found.classes) == (100, 200, rest.classes)


def test_of_a_multi_label_attribute() -> None:
    labels = np.array([[1, 0], [1, 1], [0, -1]])
    probabilities = np.array([[0.9, 0.9], [0.5, 0.9], [0.1, 0.1]], np.float32)  # 0.5 is no: yes is above it
    found = confusion(Predictions("p", ("a", "b"), probabilities, labels))
    assert [tuple(each) for each in found.classes] == [("a", 2, 1, 1), ("b", 1, 2, 1)]
    assert (found.counts, found.labels, found.right, found.missing) == (None, 5, 3, 0)
    by_class = [balanced_accuracy_score([1, 1, 0], [1, 0, 0]), balanced_accuracy_score([0, 1], [1, 1])]
    assert found.balanced_accuracy == pytest.approx(np.mean(by_class))
    assert confusion(Predictions("p", ("a", "b"), probabilities, np.full((3, 2), -1))).balanced_accuracy is None
