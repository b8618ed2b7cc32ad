"""Confusion, reliability and temperature against scikit-learn and by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import classification_report, confusion_matrix

from fashion.reading.calibration import calibration, expected_error, fit_temperature, reliability
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
    whole = calibration(Predictions("neck", NAMES, head.probabilities, masked))
    assert whole is not None
    assert whole.images == 200


def test_of_a_multi_label_attribute() -> None:
    labels = np.array([[1, 0], [1, 1], [0, -1]])
    found = confusion(Predictions("p", ("a", "b"), np.array([[0.9, 0.9], [0.2, 0.9], [0.1, 0.1]], np.float32), labels))
    assert [tuple(each) for each in found.classes] == [("a", 2, 1, 1), ("b", 1, 2, 1)]
    assert (found.counts, found.labels, found.right, found.missing) == (None, 5, 3, 0)


def test_reliability_is_that_of_scikit_learn() -> None:
    head = simulated(2000, 1.5)
    assert head.labels is not None
    probabilities = head.probabilities.astype(float)
    bins = [each for each in reliability(probabilities, head.labels) if each.number]
    right = probabilities.argmax(1) == head.labels
    accuracy, confidence = calibration_curve(right, np.minimum(probabilities.max(1), 1.0), n_bins=15)
    assert [each.accuracy for each in bins] == pytest.approx(accuracy.tolist())
    assert [each.confidence for each in bins] == pytest.approx(confidence.tolist())
    assert sum(each.number for each in bins) == 2000
    number = np.array([each.number for each in bins])
    assert expected_error(tuple(bins)) == pytest.approx(np.average(np.abs(accuracy - confidence), weights=number))


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 2.0])
def test_the_temperature_undoes_what_made_the_logits_sharper(sharpness: float) -> None:
    found = calibration(simulated(20_000, sharpness))
    assert found is not None
    assert found.temperature == pytest.approx(sharpness, rel=0.04)
    assert found.tempered_ece < 0.015
    if sharpness != 1.0:
        assert found.ece > 0.05
        assert found.tempered_nll < found.nll


def test_a_temperature_has_the_least_cross_entropy_of_a_grid() -> None:
    head = simulated(400, 1.7)
    assert head.labels is not None
    logs = np.log(np.maximum(head.probabilities.astype(float), 1e-30))

    def loss(temperature: float) -> float:
        scaled = logs / temperature
        scaled -= np.log(np.exp(scaled).sum(1, keepdims=True))
        return float(-scaled[np.arange(400), head.labels].mean())

    grid = np.geomspace(0.05, 20, 4001)
    best = grid[np.argmin([loss(each) for each in grid])]
    assert fit_temperature(logs, head.labels) == pytest.approx(best, rel=2e-3)


def test_too_few_labels_are_not_calibrated() -> None:
    head = simulated(1, 1.0)
    assert calibration(head) is None
