"""Reliability and temperatures, on probabilities whose fault is known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss

from fashion.statistics.calibration import calibration, cross_scaled, reliability, scaled, temperature
from fashion.statistics.outcomes import HeadLabels


def sampled(images: int = 20_000, by: float = 2.0) -> tuple[HeadLabels, NDArray[np.float64]]:
    """Labels drawn by probabilities, and those probabilities made too sure by this factor on the logits."""
    random = np.random.default_rng(0)
    logits = random.standard_normal((images, 3))
    true = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (random.random((images, 1)) > true.cumsum(axis=1)).sum(axis=1)
    sure = np.exp(by * logits)
    return HeadLabels("h", 3, labels.astype(np.int64)), sure / sure.sum(axis=1, keepdims=True)


def test_the_temperature_undoes_overconfidence_and_moves_no_accuracy() -> None:
    head, probabilities = sampled()
    fitted = temperature(head, probabilities)
    assert fitted == pytest.approx(2, rel=0.05)
    mended = scaled(head, probabilities, fitted)
    np.testing.assert_allclose(mended.sum(axis=1), 1)
    np.testing.assert_array_equal(mended.argmax(axis=1), probabilities.argmax(axis=1))
    before, after = reliability(head, probabilities), reliability(head, mended)
    assert before.ece > 0.1
    assert after.ece < 0.01
    assert reliability(head, cross_scaled(head, probabilities)).ece == pytest.approx(after.ece, abs=0.003)
    np.testing.assert_allclose(scaled(head, probabilities, 1.0), probabilities, rtol=1e-9)


def test_bins_are_scikit_learns() -> None:
    random = np.random.default_rng(1)
    first = random.random(500)
    probabilities = np.stack([first, 1 - first], axis=1)
    head = HeadLabels("h", 2, (random.random(500) > first).astype(np.int64))
    found = reliability(head, probabilities, bins=10)
    right = probabilities.argmax(axis=1) == head.labels
    accuracy, confidence = calibration_curve(right, probabilities.max(axis=1), n_bins=10)
    filled = [each for each in found.bins if each.number]
    assert [each.accuracy for each in filled] == pytest.approx(accuracy.tolist())
    assert [each.confidence for each in filled] == pytest.approx(confidence.tolist())
    assert {(each.confidence, each.accuracy) for each in found.bins if not each.number} == {(None, None)}
    numbers = np.array([each.number for each in filled])
    assert numbers.sum() == 500
    assert found.ece == pytest.approx((numbers * abs(accuracy - confidence)).sum() / 500)
    assert found.cross_entropy == pytest.approx(log_loss(head.labels, probabilities))


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 4.0])
def test_no_other_temperature_has_a_lower_cross_entropy(sharpness: float) -> None:
    draw = np.random.default_rng(3)
    logits = draw.normal(size=(400, 5))
    labels = np.array([draw.choice(5, p=row) for row in softmax(logits, axis=1)])
    stated = log_softmax(sharpness * logits, axis=1)
    found = temperature(HeadLabels("h", 5, labels), np.exp(stated).astype(np.float32))

    def loss(of: float) -> float:
        return float(-log_softmax(stated / of, axis=1)[np.arange(400), labels].mean())

    tried = np.geomspace(0.05, 20.0, 4000)
    best = tried[np.argmin([loss(each) for each in tried])]
    assert found == pytest.approx(best, rel=2e-3)
    assert found == pytest.approx(sharpness, rel=0.25), "by which the logits were multiplied"


def test_of_certainty_the_temperature_is_a_number() -> None:
    certain = np.eye(3, dtype=np.float32)
    assert 0.05 <= temperature(HeadLabels("h", 3, np.arange(3)), certain) < 5.0, "anything that leaves it as it is"
    wrong = temperature(HeadLabels("h", 3, (np.arange(3) + 1) % 3), certain)
    assert wrong == pytest.approx(20.0, rel=1e-2)


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 2.0])
def test_a_calibration_tells_both_sides_of_scaling(sharpness: float) -> None:
    head, probabilities = sampled(by=sharpness)
    found = calibration(head, probabilities)
    assert found is not None
    assert found.labels == 20_000
    assert found.temperature == pytest.approx(sharpness, rel=0.05)
    assert found.after.ece < 0.015
    if sharpness != 1.0:
        assert found.before.ece > 0.05
        assert found.after.cross_entropy < found.before.cross_entropy
    one = np.where(np.arange(20_000) < 1, head.labels, -1)
    assert calibration(HeadLabels("h", 3, one), probabilities) is None


def test_labels_that_are_missing_count_nowhere() -> None:
    head, probabilities = sampled(2_000)
    some = HeadLabels("h", 3, np.where(np.arange(2_000) < 500, -1, head.labels))
    rest = HeadLabels("h", 3, head.labels[500:])
    assert temperature(some, probabilities) == pytest.approx(temperature(rest, probabilities[500:]))
    assert reliability(some, probabilities).ece == pytest.approx(reliability(rest, probabilities[500:]).ece)
    none = HeadLabels("h", 3, np.full(2_000, -1))
    assert temperature(none, probabilities) == 1
    assert np.isnan(reliability(none, probabilities).ece)


def test_a_multi_label_head_has_one_temperature_too() -> None:
    random = np.random.default_rng(2)
    logits = random.standard_normal((8_000, 4))
    labels = (random.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(np.int64)
    labels[random.random(labels.shape) < 0.1] = -1
    head, sure = HeadLabels("h", 4, labels), 1 / (1 + np.exp(-3 * logits))
    assert temperature(head, sure) == pytest.approx(3, rel=0.05)
    np.testing.assert_allclose(scaled(head, sure, 3.0), 1 / (1 + np.exp(-logits)), rtol=1e-6)
    assert reliability(head, sure).ece > 0.1
    assert reliability(head, scaled(head, sure, 3.0)).ece < 0.01
