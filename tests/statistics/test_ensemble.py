"""Greedy selection against a search by hand, and honest scores where choosing means overfitting."""

from __future__ import annotations

from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import log_loss

from fashion.statistics.calibration import scaled, temperature
from fashion.statistics.ensemble import (
    choose,
    choose_by_fold,
    cross_fitted,
    library,
    mixed,
    temperatures,
)
from fashion.statistics.outcomes import HeadLabels, outcomes
from fashion.statistics.resampling import weighted

Models = list[list[NDArray[np.float32]]]


def drawn(models: int, images: int, skill: float = 1.0, seed: int = 0) -> tuple[list[HeadLabels], Models]:
    """A single-label head of three classes, a fifth of whose labels are missing, and a multi-label one of two."""
    random = np.random.default_rng(seed)
    one = random.integers(0, 3, images)
    many = random.integers(0, 2, (images, 2))
    found: Models = []
    for _ in range(models):
        logits = random.standard_normal((images, 3))
        logits[np.arange(images), one] += skill
        exp = np.exp(logits)
        traits = 1 / (1 + np.exp(-(random.standard_normal((images, 2)) + skill * (2 * many - 1))))
        found.append([(exp / exp.sum(axis=1, keepdims=True)).astype(np.float32), traits.astype(np.float32)])
    one[random.random(images) < 0.2] = -1
    many[random.random(many.shape) < 0.2] = -1
    return [HeadLabels("one", 3, one), HeadLabels("many", 2, many)], found


def val_loss(heads: list[HeadLabels], probabilities: list[NDArray[Any]]) -> float:
    made = outcomes(heads, [probabilities])
    return float(weighted(made, np.ones((made.images, 1)))["val_loss"][0, 0])


def test_each_pick_is_the_best_addition() -> None:
    heads, models = drawn(6, 80)
    found = choose(library(heads, models), 4)
    picked: list[int] = []
    for loss in found.losses:
        tried = [
            val_loss(heads, [np.mean([models[each][head] for each in [*picked, model]], axis=0) for head in range(2)])
            for model in range(6)
        ]
        picked.append(int(np.argmin(tried)))
        assert loss == pytest.approx(min(tried), rel=1e-5)
    assert found.counts == tuple(np.bincount(picked, minlength=6))
    assert list(found.members) == sorted(set(picked), key=lambda model: (-picked.count(model), model))


def test_picks_that_do_not_help_do_not_count() -> None:
    """One model knows, the others guess: averaging could only do harm. Two models that know different halves: both."""
    labels = np.array([0, 1] * 20)
    knows = np.where(np.eye(2)[labels] == 1, 0.99, 0.01).astype(np.float32)
    guesses = np.full((40, 2), 0.5, np.float32)
    head = HeadLabels("h", 2, labels)
    found = choose(library([head], [[guesses], [knows], [guesses]]), 5)
    assert found.counts[0] == found.counts[2] == 0
    assert found.losses[0] == pytest.approx(min(found.losses))
    halves = [np.where((np.arange(40) < 20)[:, None] == first, knows, guesses) for first in (True, False)]
    assert choose(library([head], [[guesses], *([half] for half in halves)]), 2).counts == (0, 1, 1)


def test_greedy_is_near_the_best_of_all_ensembles() -> None:
    heads, models = drawn(5, 200, skill=0.7)
    found = choose(library(heads, models), 3)
    every = [
        val_loss(heads, [mixed([models[each][head] for each in chosen], [1] * picks) for head in range(2)])
        for picks in (1, 2, 3)
        for chosen in combinations_with_replacement(range(5), picks)
    ]
    assert min(every) <= found.losses[-1] + 1e-6
    assert found.losses[-1] <= min(every) + 0.01


def test_an_honest_score_is_not_flattered_by_the_choice() -> None:
    """Of 60 models that all guess, the chosen ones look better than guessing on the images they were chosen on."""
    random = np.random.default_rng(5)
    head = HeadLabels("h", 2, random.integers(0, 2, 100))
    firsts = random.uniform(0.2, 0.8, (60, 100)).astype(np.float32)
    models = [[np.stack([first, 1 - first], axis=1)] for first in firsts]
    found = library([head], models)
    flattered = choose(found, 5).losses[-1]
    folds = choose_by_fold(found, 5)
    assert sorted(np.bincount(folds.fold)) == [20] * 5
    (honest,) = cross_fitted([head], folds, {model: models[model] for model in folds.members})
    assert flattered < np.log(2) - 0.02
    assert log_loss(head.labels, honest) > np.log(2) - 0.01


def test_an_image_is_predicted_by_what_was_chosen_on_the_others() -> None:
    heads, models = drawn(6, 90)
    found = library(heads, models)
    folds = choose_by_fold(found, 3)
    predicted = cross_fitted(heads, folds, dict(enumerate(models)))
    rest, own = folds.fold != 2, folds.fold == 2
    assert folds.choices[2] == choose(found, 3, rest)
    choice = folds.choices[2]
    for index, head in enumerate(heads):
        each = [count * models[model][index].astype(float) for model, count in enumerate(choice.counts)]
        mean = np.sum(each, axis=0) / sum(choice.counts)
        by = temperature(HeadLabels("h", head.classes, head.labels[rest]), mean[rest])
        np.testing.assert_allclose(predicted[index][own], scaled(head, mean, by)[own])
    np.testing.assert_allclose(predicted[0].sum(axis=1), 1)


def test_the_choice_of_one_image_changes_nothing_of_its_own_prediction() -> None:
    """To be left out is to have no say: another label of an image moves no prediction of its fold."""
    heads, models = drawn(4, 40)
    found = cross_fitted(heads, choose_by_fold(library(heads, models), 2), dict(enumerate(models)))
    image = int(np.flatnonzero(heads[0].labels >= 0)[0])
    labels = heads[0].labels.copy()
    labels[image] = (labels[image] + 1) % 3
    other = [HeadLabels("one", 3, labels), heads[1]]
    folds = choose_by_fold(library(other, models), 2)
    again = cross_fitted(other, folds, dict(enumerate(models)))
    same = folds.fold == folds.fold[image]
    np.testing.assert_array_equal(found[0][same], again[0][same])
    assert not np.array_equal(found[0][~same], again[0][~same])


def test_a_head_without_labels_is_left_out() -> None:
    heads, models = drawn(4, 50)
    nothing = HeadLabels("one", 3, np.full(50, -1))
    found = choose(library([nothing, heads[1]], models), 3)
    assert found == choose(library([heads[1]], [[model[1]] for model in models]), 3)
    assert temperatures([nothing], [models[0][0]]) == (1.0,)


def test_what_cannot_be_chosen_from() -> None:
    heads, models = drawn(2, 10)
    with pytest.raises(ValueError, match="no head or no model"):
        library(heads, [])
    with pytest.raises(ValueError, match="one: probabilities have shape"):
        library(heads, [[models[0][0][:5], models[0][1]]])
    with pytest.raises(ValueError, match="at least one pick"):
        choose(library(heads, models), 0)
    few, single = drawn(2, 1)
    with pytest.raises(ValueError, match="two images"):
        cross_fitted(few, choose_by_fold(library(few, single), 2), dict(enumerate(single)))
