"""The page's certainty: intervals, the tied set and calibration against sources of their own."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from fashion.api.validation import AttributePredictions, ValidationPredictions
from fashion.page.certainty import (
    balanced_accuracy,
    calibration,
    compared,
    paired_differences,
    per_image,
    share_interval,
)


def test_the_interval_of_a_share_is_that_of_the_normal_approximation() -> None:
    values = np.arange(1000) < 700
    found = share_interval(values)
    spread = math.sqrt(0.7 * 0.3 / 1000)
    assert found.low == pytest.approx(0.7 - 1.96 * spread, abs=0.003)
    assert found.high == pytest.approx(0.7 + 1.96 * spread, abs=0.003)


def test_balanced_accuracy_is_scikit_learns() -> None:
    drawn = np.random.default_rng(0)
    labels = drawn.choice(4, 300, p=[0.6, 0.2, 0.15, 0.05])
    predicted = np.where(drawn.random(300) < 0.6, labels, drawn.integers(0, 4, 300))
    value, interval = balanced_accuracy(predicted == labels, labels)
    assert value == pytest.approx(balanced_accuracy_score(labels, predicted))
    assert interval.low < value < interval.high


def test_equal_trials_are_tied_and_a_clear_loser_is_not() -> None:
    drawn = np.random.default_rng(1)
    common = drawn.normal(1, 0.5, (500, 1))
    losses = common + drawn.normal(0, 0.1, (500, 6))
    losses[:, 5] += 0.2
    order = [int(each) for each in losses.mean(axis=0).argsort()]
    found = compared(order, losses[:, order], (losses < 1)[:, order].astype(float))
    assert found.tied == {0, 1, 2, 3, 4}
    assert found.corrected_loss is not None
    assert found.corrected_loss > losses.mean(axis=0).min()  # the best looks better than it is


def test_one_trial_is_tied_with_itself() -> None:
    found = compared([7], np.ones((20, 1)), np.ones((20, 1)))
    assert found.tied == {7}


def test_scaling_finds_the_temperature_by_which_the_logits_were_multiplied() -> None:
    drawn = np.random.default_rng(2)
    logits = drawn.normal(0, 1.5, (4000, 4))
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = np.array([drawn.choice(4, p=share) for share in shares])
    sharp = np.exp(2 * logits) / np.exp(2 * logits).sum(axis=1, keepdims=True)
    found = calibration(sharp.astype(np.float32), labels)
    assert found.temperature == pytest.approx(2, rel=0.1)
    assert found.error_after < found.error_before / 3
    assert sum(each.count for each in found.before) == 4000


def predictions(labels: list[int], first: list[float]) -> ValidationPredictions:
    """Of one attribute with two classes."""
    values = np.array([[share, 1 - share] for share in first], np.float32)
    attribute = AttributePredictions("fit", ("tight", "loose"), values, np.array(labels))
    return ValidationPredictions(0, 1, tuple(f"{n}.jpg" for n in range(len(labels))), (attribute,))


def test_a_missing_label_counts_nowhere() -> None:
    loss, right = per_image(predictions([0, -1, 1], [0.8, 0.9, 0.6]))
    assert np.isnan(loss[1])
    assert right[[0, 2]].tolist() == [1, 0]
    assert loss[2] == pytest.approx(-math.log(0.4))


def test_differences_are_of_the_second_less_the_first() -> None:
    labels = [0] * 50
    worse = predictions(labels, [0.4 if n % 2 else 0.9 for n in range(50)])
    better = predictions(labels, [0.9] * 50)
    found = {each.metric: each for each in paired_differences(worse, better)}
    assert found["val_accuracy"].difference == pytest.approx(0.5)
    assert found["val_accuracy"].told_apart
    assert found["val_loss"].difference < 0
    assert not any(each.told_apart for each in paired_differences(better, better))
