"""Reliability and temperatures, on probabilities whose fault is known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.calibration import calibration_curve

from fashion.statistics.calibration import cross_scaled, reliability, scaled, temperature
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
    filled = found.counts > 0
    np.testing.assert_allclose(found.accuracy[filled], accuracy)
    np.testing.assert_allclose(found.confidence[filled], confidence)
    assert found.ece == pytest.approx((found.counts[filled] * abs(accuracy - confidence)).sum() / 500)


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
