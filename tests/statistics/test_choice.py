"""The tied set, the corrected score and other choices, in small; test_simulation.py has the promises."""

from __future__ import annotations

import numpy as np
import pytest

from fashion.statistics.corrected import corrected
from fashion.statistics.disagreement import other_choices
from fashion.statistics.outcomes import HeadLabels, Outcomes
from fashion.statistics.resampling import difference, resample, weighted
from fashion.statistics.tied import _critical, gains, tied_set
from tests.support.simulated import Population


def made(losses: list[list[float]], right: list[list[int]] | None = None) -> Outcomes:
    """One head of two classes; by default a loss below 0.7 is a hit."""
    loss = np.array(losses, np.float32)
    hits = loss < 0.7 if right is None else np.array(right, bool)
    labels = np.arange(loss.shape[1]) % 2
    return Outcomes((HeadLabels("h", 2, labels),), (loss,), (hits[None],))


def noisy(means: list[float], images: int = 200) -> Outcomes:
    random = np.random.default_rng(0)
    shared = random.standard_normal(images)
    return made([list(mean + 0.3 * shared + 0.1 * random.standard_normal(images)) for mean in means])


def test_the_tied_set_holds_what_is_near_and_drops_what_is_not() -> None:
    found = tied_set(resample(noisy([0.5, 0.51, 0.7, 0.505, 1.5])))
    assert set(found) == {0, 1, 3}
    values = weighted(noisy([0.5, 0.51, 0.7, 0.505, 1.5]), np.ones((200, 1)))["val_loss"][:, 0]
    assert list(found) == sorted(found, key=lambda index: values[index])


def test_of_two_models_the_tied_set_is_their_paired_test() -> None:
    for gap in np.linspace(0, 0.05, 11):
        resampled = resample(noisy([0.5, 0.5 + gap]))
        apart = difference(resampled, "val_loss", 0, 1)
        if min(abs(apart.low), abs(apart.high)) > 0.002:  # not on the border, where the two kinds of interval differ
            assert (len(tied_set(resampled)) == 2) == apart.within_noise


def test_models_that_did_the_same_are_never_told_apart() -> None:
    resampled = resample(noisy([0.5] * 3).chosen(np.zeros((3, 200), np.intp)))
    assert tied_set(resampled) == (0, 1, 2)
    assert tied_set(resample(noisy([0.5]))) == (0,)


def test_the_critical_value_is_that_of_all_pairs() -> None:
    """No pair that could be the largest is left out, also where standard errors differ widely."""
    random = np.random.default_rng(4)
    losses = random.standard_normal((30, 200)) * random.uniform(0.01, 2, 30)[:, None]
    resampled = resample(made(losses.tolist()), 99)
    centred = resampled.draws["val_loss"] - resampled.values["val_loss"][:, None]
    apart = np.abs(centred[:, None] - centred[None])
    pairs = losses[:, None] - losses[None]
    errors = pairs.std(axis=2, ddof=1) / 200**0.5 + np.eye(30)
    expected = np.sort((apart / errors[:, :, None]).max(axis=(0, 1)))[94]  # of 99 draws a further one exceeds 5 %
    found = _critical(centred.astype(np.float32), (1 / errors - np.eye(30)).astype(np.float32), 0.95)
    assert found == pytest.approx(expected, rel=1e-4)


def test_more_is_better_of_shares() -> None:
    right = np.zeros((2, 200), int)
    right[0, :100], right[1, :180] = 1, 1
    resampled = resample(made([[0.4] * 200, [0.5] * 200], right.tolist()))
    assert tied_set(resampled, "val_accuracy") == (1,)
    best, ahead = gains(resampled, "val_accuracy", 0)
    assert best == 1
    assert ahead.value == pytest.approx(0.4)
    assert 0.3 < ahead.low < 0.4 < ahead.high < 0.5
    others = other_choices(resampled, 0)
    metrics = {"val_accuracy", "val_balanced_accuracy", "val_exact_match", "val_accuracy/h"}
    assert {each.metric for each in others} == metrics
    assert all((each.model, each.within_noise) == (1, False) for each in others)
    assert all(each.gives_up.value == pytest.approx(0.1) for each in others)


def test_the_corrected_score_of_one_model_is_its_own() -> None:
    alone = noisy([0.5])
    own = {name: value[0, 0] for name, value in weighted(alone, np.ones((200, 1))).items()}
    assert corrected(alone) == pytest.approx(own)
    assert corrected(noisy([0.5, 0.5])) == corrected(noisy([0.5, 0.5])), "the divisions are always the same"


def test_the_best_of_equals_is_no_better_than_they_are() -> None:
    """Over 30 sweeps of 24 equal trials the winner's raw score is a point too high, the corrected one is not."""
    population = Population(24, 0.0)
    true = population.true["val_accuracy"][0]
    raw, errors = [], []
    for sweep in range(30):
        outcomes = population.outcomes(np.random.default_rng(sweep), 300)
        values = {name: value[:, 0] for name, value in weighted(outcomes, np.ones((300, 1))).items()}
        easier = values["val_accuracy"].mean() - true
        raw.append(values["val_accuracy"][values["val_loss"].argmin()] - true - easier)
        errors.append(corrected(outcomes, repeats=5)["val_accuracy"] - true - easier)
    assert np.mean(raw) > 0.01
    assert abs(np.mean(errors)) < 0.004
