"""Influences against the metrics themselves with one image weighed a little more; errors against scipy's."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import ttest_rel

from fashion.statistics.influence import influences, standard_errors
from fashion.statistics.outcomes import HeadLabels, Outcomes, outcomes
from fashion.statistics.resampling import weighted
from tests.support.predicted import drawn

STEP = 1e-6


def made(missing: bool) -> Outcomes:
    """Three models of 60 images: a head of three classes, one of two, and a multi-label one of two."""
    (first, second), models = drawn(3, 60)
    random = np.random.default_rng(2)
    several = random.integers(0, 2, (60, 2))
    if missing:
        first, several = first.copy(), several.copy()
        first[5:20], several[10:30, 0] = -1, -1
    heads = [HeadLabels("three", 3, first), HeadLabels("two", 2, second), HeadLabels("several", 2, several)]
    return outcomes(heads, [[*model, random.random((60, 2)).astype(np.float32)] for model in models])


def derivatives(of: Outcomes) -> dict[str, NDArray[np.float64]]:
    """How fast each metric changes with the weight of each image, (T, N)."""
    weights = np.ones((of.images, of.images)) + STEP * np.eye(of.images)
    before = weighted(of, np.ones((of.images, 1)))
    return {name: (value - before[name]) / STEP for name, value in weighted(of, weights).items()}


@pytest.mark.parametrize("missing", [False, True])
def test_an_influence_is_what_a_little_more_weight_does(missing: bool) -> None:
    of = made(missing)
    for metric, expected in derivatives(of).items():
        found = influences(of, metric)
        np.testing.assert_allclose(found, expected, atol=2e-7, err_msg=metric)
        np.testing.assert_allclose(found.sum(axis=1), 0, atol=1e-12)
    with pytest.raises(KeyError):
        influences(of, "val_accuracy/four")


def test_standard_errors_are_those_of_the_paired_t_test() -> None:
    (labels, _), models = drawn(3, 60)
    of = outcomes([HeadLabels("h", 3, labels)], [[model[0]] for model in models])
    errors = standard_errors(influences(of, "val_loss"))
    losses = of.losses[0].astype(float)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        apart = float((losses[one] - losses[other]).mean())
        assert apart / errors[one, other] == pytest.approx(ttest_rel(losses[one], losses[other]).statistic, rel=1e-6)
    assert np.diag(errors) == pytest.approx(0, abs=1e-9)
