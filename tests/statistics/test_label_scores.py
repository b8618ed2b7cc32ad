"""Average precision and F1 of single classes against scikit-learn's, weighted ones too, and their intervals."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy.stats import bootstrap
from sklearn.metrics import average_precision_score, f1_score

from fashion.statistics.label_scores import average_precision, f1, label_scores
from fashion.statistics.outcomes import HeadLabels

RANDOM = np.random.default_rng(0)


def test_both_are_scikit_learns_under_weights_and_with_ties() -> None:
    for _ in range(10):
        holds, scores = RANDOM.random(40) < 0.3, RANDOM.integers(0, 6, 40) / 5
        weights = RANDOM.integers(0, 4, (40, 3)).astype(np.float32)
        expected = [average_precision_score(holds, scores, sample_weight=each) for each in weights.T]
        assert average_precision(holds, scores, weights) == pytest.approx(expected, rel=1e-12)
        expected = [f1_score(holds, scores > 0.5, sample_weight=each) for each in weights.T]
        assert f1(holds, scores > 0.5, weights) == pytest.approx(expected, rel=1e-12)


def test_without_anything_to_find_both_are_0() -> None:
    nothing, once = np.zeros(3, bool), np.ones((3, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert average_precision(nothing, np.ones(3), once)[0] == average_precision_score(nothing, np.ones(3)) == 0
    assert f1(nothing, nothing, once)[0] == 0
    assert average_precision(np.zeros(0, bool), np.zeros(0), np.ones((0, 1)))[0] == 0


def test_intervals_are_those_of_scipys_bootstrap_over_the_known_labels() -> None:
    labels = (RANDOM.random((300, 2)) < (0.3, 0.02)).astype(np.int64)
    probabilities = np.clip(0.4 * labels + 0.6 * RANDOM.random((300, 2)), 0, 1)
    labels[RANDOM.random((300, 2)) < 0.2] = -1
    frequent, rare = label_scores(HeadLabels("traits", 2, labels), probabilities)
    known = labels[:, 0] >= 0
    holds, scores = labels[known, 0] == 1, probabilities[known, 0]
    assert (frequent.images, frequent.having, frequent.named) == (known.sum(), holds.sum(), (scores > 0.5).sum())
    for found, metric, what in (
        (frequent.average_precision, average_precision_score, scores),
        (frequent.f1, f1_score, (scores > 0.5).astype(int)),
    ):
        assert found.value == pytest.approx(metric(holds, what))
        wanted = bootstrap((holds, what), metric, paired=True, vectorized=False, n_resamples=150,
                           method="percentile", rng=1).confidence_interval  # fmt: skip
        assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=0.04)
        assert found.reliable
    assert not rare.f1.reliable
