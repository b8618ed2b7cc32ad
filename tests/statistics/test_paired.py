"""Two models on the same images, against scipy and by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from fashion.statistics.outcomes import HeadLabels
from fashion.statistics.paired import MetricDifference, metric_differences
from tests.support.recorded import ATTRIBUTES
from tests.support.skilled_runs import CLASSES, labels_of, metrics_of, probabilities_of


def heads(labels: NDArray[np.int64]) -> list[HeadLabels]:
    return [
        HeadLabels(str(each["name"]), len(classes), labels[:, index])
        for index, (each, classes) in enumerate(zip(ATTRIBUTES, CLASSES, strict=True))
    ]


def between(one: tuple[float, int], other: tuple[float, int], level: float = 0.95) -> dict[str, MetricDifference]:
    """Of two models of these skills and seeds."""
    labels = labels_of()
    first, second = (probabilities_of(labels, *each) for each in (one, other))
    return {each.metric: each for each in metric_differences(heads(labels), first, second, level)}


def test_the_metrics_are_those_that_are_reported() -> None:
    labels = labels_of()
    found = between((1.0, 1), (1.1, 2))
    for side, model in (("first", (1.0, 1)), ("second", (1.1, 2))):
        reported = metrics_of(labels, probabilities_of(labels, *model))
        mine = {name: getattr(each, side) for name, each in found.items()}
        assert mine == pytest.approx({name: reported[name] for name in mine}, abs=1e-6)
    assert len(found) == 6


def test_intervals_agree_with_those_of_scipy() -> None:
    labels = labels_of()
    models = [probabilities_of(labels, *each) for each in ((1.0, 1), (1.1, 2))]
    found = between((1.0, 1), (1.1, 2))["val_accuracy"].difference
    right = [np.stack([h.argmax(1) == labels[:, i] for i, h in enumerate(each)], 1).mean(1) for each in models]
    wanted = stats.bootstrap(
        (right[1] - right[0],), np.mean, n_resamples=2000, method="percentile", rng=np.random.default_rng(3)
    ).confidence_interval
    assert found.value == pytest.approx(float(np.mean(right[1] - right[0])))
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=0.15 * (wanted.high - wanted.low))
    assert between((1.0, 1), (1.1, 2))["val_accuracy"].difference == found


def test_what_differs_is_clear_and_what_does_not_is_not() -> None:
    better = between((0.5, 1), (2, 2))
    assert not better["val_loss"].difference.within_noise
    assert better["val_loss"].difference.value < 0 < better["val_accuracy"].difference.value
    for each in between((1.0, 1), (1.0, 1)).values():
        found = each.difference
        assert (found.value, found.low, found.high, found.within_noise) == (0.0, 0.0, 0.0, True)


def test_equal_models_are_rarely_told_apart() -> None:
    """The interval of 95 % leaves out no difference in about 95 of 100 pairs of models that are equally good."""
    clear = 0
    for seed in range(60):
        labels = labels_of(seed)
        one, other = (probabilities_of(labels, 1.0, 2 * seed + each)[:1] for each in (0, 1))
        found = metric_differences(heads(labels)[:1], one, other, seed=seed)
        clear += not next(each for each in found if each.metric == "val_loss").difference.within_noise
    assert clear <= 8  # of 60; 3 are expected, and more than 8 come in 1 of 200 such experiments


def test_a_wider_level_is_a_wider_interval() -> None:
    narrow, wide = (between((1.0, 1), (1.1, 2), level)["val_loss"].difference for level in (0.95, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high
