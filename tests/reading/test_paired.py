"""Metrics as ratios of sums, and the paired bootstrap, against scikit-learn, scipy and the definitions."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import balanced_accuracy_score, log_loss

from fashion.reading.paired import metric_sums, paired_differences
from tests.support.recorded import ATTRIBUTES
from tests.support.skilled_runs import CLASSES, IMAGES, Predictions, labels_of, metrics_of, probabilities_of


def heads(skill: float, seed: int, labels: NDArray[np.int64]) -> list[Predictions]:
    found = probabilities_of(labels, skill, seed)
    return [
        Predictions(str(ATTRIBUTES[i]["name"]), tuple(CLASSES[i]), found[i], labels[:, i]) for i in range(len(found))
    ]


def test_the_metrics_are_those_that_are_reported() -> None:
    labels = labels_of()
    mine = {each.metric: each.values(np.ones((1, IMAGES)))[0] for each in metric_sums(heads(1.0, 1, labels))}
    reported = metrics_of(labels, probabilities_of(labels, 1.0, 1))
    assert mine == pytest.approx({name: value for name, value in reported.items() if name in mine}, abs=1e-9)
    assert len(mine) == 6


def test_missing_labels_count_in_nothing() -> None:
    labels = labels_of()
    masked = labels.copy()
    masked[::3, 0] = -1
    found = heads(1.0, 1, masked)
    mine = {each.metric: each.values(np.ones((1, IMAGES)))[0] for each in metric_sums(found[:1])}
    known = masked[:, 0] >= 0
    probabilities = found[0].probabilities[known].astype(float)
    guessed = probabilities.argmax(1)
    assert mine["val_loss"] == pytest.approx(log_loss(masked[known, 0], probabilities), abs=1e-6)
    assert mine["val_accuracy"] == pytest.approx((guessed == masked[known, 0]).mean())
    assert mine["val_balanced_accuracy"] == pytest.approx(balanced_accuracy_score(masked[known, 0], guessed))


def test_a_multi_label_attribute_counts_class_by_class() -> None:
    labels = np.array([[1, 0, -1], [0, 1, 1], [-1, -1, -1]])
    probabilities = np.array([[0.9, 0.6, 0.5], [0.4, 0.8, 0.2], [0.5, 0.5, 0.5]], np.float32)
    mine = {
        each.metric: each.values(np.ones((1, 3)))[0]
        for each in metric_sums([Predictions("print", ("a", "b", "c"), probabilities, labels)])
    }
    assert mine["val_accuracy"] == pytest.approx(3 / 5)  # right: a of the first, a and b of the second
    assert mine["val_exact_match"] == 0.0
    first, second = -np.log([0.9, 0.4]).mean(), -np.log([0.6, 0.8, 0.2]).mean()
    assert mine["val_loss"] == pytest.approx((first + second) / 2, abs=1e-6)


def test_intervals_agree_with_those_of_scipy() -> None:
    labels = labels_of()
    one, other = heads(1.0, 1, labels), heads(1.1, 2, labels)
    found = {each.metric: each for each in paired_differences(metric_sums(one), metric_sums(other))}
    right = [np.stack([h.probabilities.argmax(1) == h.labels for h in each], 1).mean(1) for each in (one, other)]
    wanted = stats.bootstrap(
        (right[1] - right[0],), np.mean, n_resamples=2000, method="percentile", rng=np.random.default_rng(3)
    ).confidence_interval
    mine = found["val_accuracy"]
    assert mine.difference == pytest.approx(float(np.mean(right[1] - right[0])))
    assert (mine.low, mine.high) == pytest.approx((wanted.low, wanted.high), abs=0.15 * (wanted.high - wanted.low))
    assert found == {each.metric: each for each in paired_differences(metric_sums(one), metric_sums(other))}


def test_what_differs_is_clear_and_what_does_not_is_not() -> None:
    labels = labels_of()
    better = {
        e.metric: e for e in paired_differences(metric_sums(heads(0.5, 1, labels)), metric_sums(heads(2, 2, labels)))
    }
    assert better["val_loss"].clear
    assert better["val_loss"].difference < 0 < better["val_accuracy"].difference
    same = paired_differences(metric_sums(heads(1.0, 1, labels)), metric_sums(heads(1.0, 1, labels)))
    assert {(each.difference, each.low, each.high, each.clear) for each in same} == {(0.0, 0.0, 0.0, False)}


def test_equal_models_are_rarely_told_apart() -> None:
    """The interval of 95 % leaves out no difference in about 95 of 100 pairs of models that are equally good."""
    clear = 0
    for seed in range(60):
        labels = labels_of(seed)
        one, other = heads(1.0, 2 * seed, labels)[:1], heads(1.0, 2 * seed + 1, labels)[:1]
        clear += paired_differences(metric_sums(one), metric_sums(other), seed=seed)[0].clear
    assert clear <= 8  # of 60; 3 are expected, and more than 8 come in 1 of 200 such experiments


def test_a_wider_level_is_a_wider_interval() -> None:
    labels = labels_of()
    sums = metric_sums(heads(1.0, 1, labels)), metric_sums(heads(1.1, 2, labels))
    narrow, wide = paired_differences(*sums)[0], paired_differences(*sums, level=0.99)[0]
    assert wide.low < narrow.low < narrow.high < wide.high
