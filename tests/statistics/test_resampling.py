"""Metrics, intervals and differences against scikit-learn's and scipy's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from scipy.stats import binomtest, bootstrap
from sklearn.metrics import accuracy_score, balanced_accuracy_score, log_loss

from fashion.model.metrics import LabelMeter
from fashion.statistics.outcomes import HeadLabels, Outcomes, joined, outcomes
from fashion.statistics.resampling import difference, intervals, resample, weighted
from tests.support.predicted import Probabilities, drawn

DRAWN = drawn(3, 150)


def heads(labels: list[NDArray[np.int64]]) -> list[HeadLabels]:
    return [HeadLabels(f"head{index}", (3, 2)[index], column) for index, column in enumerate(labels)]


def values(of: Outcomes) -> dict[str, NDArray[np.float64]]:
    return {name: found[:, 0] for name, found in weighted(of, np.ones((of.images, 1))).items()}


def missing(labels: list[NDArray[np.int64]]) -> list[NDArray[np.int64]]:
    """Some labels of the first head missing, all of a few images."""
    found = [column.copy() for column in labels]
    found[0][10:60] = -1
    found[1][50:60] = -1
    return found


def sklearns(labels: list[NDArray[np.int64]], model: Probabilities) -> dict[str, float]:
    kept = [column >= 0 for column in labels]
    known = [(head[keep], column[keep]) for head, column, keep in zip(model, labels, kept, strict=True)]
    right = [head.argmax(axis=1) == column for head, column in known]
    exact = np.all([head.argmax(1) == column for head, column in zip(model, labels, strict=True)], axis=0)
    return {
        "val_loss": float(np.mean([log_loss(c, h.astype(float), labels=range(h.shape[1])) for h, c in known])),
        "val_accuracy": float(np.concatenate(right).mean()),
        "val_balanced_accuracy": float(np.mean([balanced_accuracy_score(c, h.argmax(1)) for h, c in known])),
        "val_exact_match": float(exact[kept[0] & kept[1]].mean()),
        "val_accuracy/head0": float(accuracy_score(known[0][1], known[0][0].argmax(1))),
        "val_accuracy/head1": float(accuracy_score(known[1][1], known[1][0].argmax(1))),
    }


@pytest.mark.parametrize("labels", [DRAWN[0], missing(DRAWN[0])], ids=["complete", "some missing"])
def test_metrics_are_scikit_learns(labels: list[NDArray[np.int64]]) -> None:
    found = values(outcomes(heads(labels), DRAWN[1]))
    for number, model in enumerate(DRAWN[1]):
        expected = sklearns(labels, model)
        assert {name: value[number] for name, value in found.items()} == pytest.approx(expected, rel=1e-5)


def test_a_draw_weighs_images_as_often_as_they_are_drawn() -> None:
    """The same as the metrics of the images laid side by side, some twice and some not at all."""
    labels, models = missing(DRAWN[0]), DRAWN[1]
    rows = np.random.default_rng(1).integers(0, 150, 150)
    weights = np.bincount(rows, minlength=150).astype(float)[:, None]
    drawn_once = outcomes(
        heads([column[rows] for column in labels]), [[head[rows] for head in each] for each in models]
    )
    found = weighted(outcomes(heads(labels), models), weights)
    for name, value in values(drawn_once).items():
        np.testing.assert_allclose(found[name][:, 0], value, rtol=1e-6)


def test_a_multi_label_head_counts_each_of_its_labels() -> None:
    labels = np.array([[1, 0], [0, -1], [-1, -1], [1, 1]])
    model = np.array([[0.9, 0.2], [0.6, 0.9], [0.5, 0.5], [0.2, 0.8]], np.float32)
    found = values(outcomes([HeadLabels("h", 2, labels)], [[model]]))
    assert found["val_loss"][0] == pytest.approx(-np.log([0.9, 0.8, 0.4, 0.2, 0.8]).mean(), rel=1e-6)
    assert found["val_accuracy"][0] == pytest.approx(3 / 5)
    assert found["val_exact_match"][0] == pytest.approx(1 / 2)
    # Of the first class one of two is found and the one 0 is not; of the second both.
    assert found["val_balanced_accuracy"][0] == pytest.approx(np.mean([(0.5 + 0) / 2, 1]))


def test_metrics_are_those_that_training_reports() -> None:
    """Of a single-label and a multi-label head, both with missing labels."""
    random = np.random.default_rng(4)
    labels = np.concatenate([random.integers(0, 3, (80, 1)), random.integers(0, 2, (80, 4))], axis=1)
    labels[random.random(labels.shape) < 0.15] = -1
    logits = [random.standard_normal((80, 3)), random.standard_normal((80, 4))]
    meter = LabelMeter((3, 4), multi_label=(False, True))
    meter.update([torch.from_numpy(each) for each in logits], torch.from_numpy(labels))
    reported = {f"val_{name}": value for name, value in meter.compute(["one", "many"]).items()}
    given = [HeadLabels("one", 3, labels[:, 0]), HeadLabels("many", 4, labels[:, 1:])]
    probabilities = [softmax(logits[0], axis=1), 1 / (1 + np.exp(-logits[1]))]
    found = {name: float(value[0]) for name, value in values(outcomes(given, [probabilities])).items()}
    assert found == pytest.approx(reported, rel=1e-5)


def test_intervals_are_scipys() -> None:
    made = outcomes(heads(DRAWN[0]), DRAWN[1])
    found = intervals(resample(made, 9_999))
    losses = np.mean(made.losses, axis=0)
    exact = made.exact.astype(float)
    for number in range(3):
        for name, data in (("val_loss", losses[number]), ("val_exact_match", exact[number])):
            expected = bootstrap((data,), np.mean, n_resamples=9_999, method="percentile", rng=1).confidence_interval
            interval = found[number][name]
            near = 0.06 * (expected.high - expected.low)
            assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), abs=near)
            assert interval.value == pytest.approx(data.mean(), rel=1e-6)


def test_a_difference_is_paired() -> None:
    made = outcomes(heads(DRAWN[0]), DRAWN[1])
    found = difference(resample(made, 9_999), "val_loss", 0, 1)
    losses = np.mean(made.losses, axis=0)
    data = losses[0] - losses[1]
    expected = bootstrap((data,), np.mean, n_resamples=9_999, method="percentile", rng=1).confidence_interval
    near = 0.06 * (expected.high - expected.low)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=near)
    assert found.value == pytest.approx(data.mean(), rel=1e-5)
    assert found.within_noise == (found.low <= 0 <= found.high)
    same = difference(resample(made), "val_accuracy", 1, 1)
    assert (same.value, same.low, same.high, same.within_noise) == (0, 0, 0, True)


def test_where_everything_is_right_the_bound_is_exact() -> None:
    labels = np.arange(40) % 2
    model = np.eye(2, dtype=np.float32)[labels] * 0.8 + 0.1
    found = intervals(resample(outcomes([HeadLabels("h", 2, labels)], [[model], [1 - model]])))
    right, wrong = (each["val_accuracy"] for each in found)
    assert right.low == pytest.approx(binomtest(40, 40).proportion_ci().low)
    assert wrong.high == pytest.approx(binomtest(0, 40).proportion_ci().high)
    assert (wrong.low, right.high) == (0, 1)
    balanced = found[0]["val_balanced_accuracy"]
    assert balanced.low == pytest.approx(binomtest(20, 20).proportion_ci().low)


def test_intervals_of_small_classes_are_marked() -> None:
    labels = [np.array([0] * 100 + [1] * 30 + [2] * 20), np.array([0] * 131 + [1] * 19)]
    found = intervals(resample(outcomes(heads(labels), DRAWN[1])))[0]
    assert {name for name, each in found.items() if each.reliable} == {"val_accuracy/head0"}


def test_the_same_seed_draws_the_same() -> None:
    made = outcomes(heads(DRAWN[0]), DRAWN[1])
    first, second = resample(made, 50), resample(made, 50)
    assert all((first.draws[name] == second.draws[name]).all() for name in first.metrics)
    assert (first.draws["val_loss"] != resample(made, 50, seed=1).draws["val_loss"]).any()


def test_only_models_on_the_same_labels_are_joined() -> None:
    parts = [outcomes(heads(DRAWN[0]), [model]) for model in DRAWN[1]]
    whole = values(outcomes(heads(DRAWN[0]), DRAWN[1]))
    np.testing.assert_array_equal(values(joined(parts))["val_loss"], whole["val_loss"])
    with pytest.raises(ValueError, match="same labels"):
        joined([parts[0], outcomes(heads(missing(DRAWN[0])), DRAWN[1][:1])])
    with pytest.raises(ValueError, match="probabilities have shape"):
        outcomes(heads(DRAWN[0]), [DRAWN[1][0][::-1]])
