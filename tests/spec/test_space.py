"""Distributions and how trials are drawn from them."""

from __future__ import annotations

import math
import random
from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fashion.spec.space import (
    Choice,
    Distribution,
    Expression,
    Grid,
    Int,
    LogUniform,
    Scalar,
    Switch,
    Uniform,
    When,
    combinations,
    leaves,
    resolve,
    unit,
)

finite = st.floats(-1e6, 1e6, allow_nan=False)
positive = st.floats(1e-8, 1e6)
draws = st.floats(0, 1, exclude_max=True)
scalars = st.one_of(st.integers(), finite, st.booleans(), st.none(), st.text(max_size=5))


@given(st.tuples(finite, finite).map(sorted), draws)
def test_uniform_stays_inside(ends: list[float], u: float) -> None:
    assert Uniform(*ends).contains(Uniform(*ends).at(u))


@given(st.tuples(positive, positive).map(sorted), draws)
def test_loguniform_stays_inside(ends: list[float], u: float) -> None:
    assert LogUniform(*ends).contains(LogUniform(*ends).at(u))


@given(st.integers(-1000, 1000), st.integers(0, 1000), st.integers(1, 50), draws)
def test_int_stays_inside_and_on_its_steps(lo: int, width: int, step: int, u: float) -> None:
    value = Int(lo, lo + width, step).at(u)
    assert lo <= value <= lo + width
    assert (value - lo) % step == 0


@given(st.integers(1, 1000), st.integers(0, 1000), draws)
def test_int_log_stays_inside(lo: int, width: int, u: float) -> None:
    assert lo <= Int(lo, lo + width, log=True).at(u) <= lo + width


@given(st.lists(scalars, min_size=1), draws)
def test_choice_gives_one_of_its_values(values: list[Scalar], u: float) -> None:
    assert Choice(tuple(values)).contains(Choice(tuple(values)).at(u))


def test_contains_tells_booleans_from_numbers_and_refuses_what_lies_outside() -> None:
    assert not Choice((1, 2)).contains(True)
    assert not Choice((True,)).contains(1)
    assert not Uniform(0, 1).contains(True)
    assert not Uniform(0, 1).contains(1.1)
    assert not Int(0, 10, 2).contains(3)
    assert not Int(0, 10).contains(2.5)
    assert not Int(0, 10).contains("3")


def test_both_ends_of_an_int_are_drawn_equally_often() -> None:
    rng = random.Random(1)
    counts = Counter(Int(3, 7, 2).at(rng.random()) for _ in range(6000))
    assert set(counts) == {3, 5, 7}
    assert all(1800 < count < 2200 for count in counts.values())


def test_loguniform_is_uniform_in_its_logarithm_for_either_generator() -> None:
    for rng in (random.Random(2), np.random.default_rng(2)):
        logs = [math.log10(LogUniform(1e-4, 1.0).at(rng.random())) for _ in range(4000)]
        below = [sum(value < edge for value in logs) / len(logs) for edge in (-3, -2, -1)]
        assert np.allclose(below, [0.25, 0.5, 0.75], atol=0.03)


def test_draws_are_uniform_over_trials_and_unrelated_between_dimensions() -> None:
    left = np.array([unit(0, number, "train.lr") for number in range(4000)])
    right = np.array([unit(0, number, "train.ema") for number in range(4000)])
    assert np.allclose(np.histogram(left, 10, (0, 1))[0] / 4000, 0.1, atol=0.02)
    assert abs(np.corrcoef(left, right)[0, 1]) < 0.05
    assert unit(0, 1, "x") != unit(1, 1, "x")


def test_draws_do_not_change_between_releases() -> None:
    # A run directory that is resumed with another release must draw the same trials.
    assert unit(0, 0, "train.lr") == 0.07418625581496296
    assert unit(7, 123, "train.lr[sgd]") == 0.3041193625041765


def test_only_the_dimensions_that_apply_are_asked_for() -> None:
    expressions: dict[str, Expression] = {
        "a": Choice((1, 2)),
        "b": Switch("a", ((1, Uniform(0, 1)), (2, 5)), 0),
        "c": When((("b", (5,)),), Int(1, 3), Int(7, 9)),
    }
    asked: list[str] = []

    def first(name: str, distribution: Distribution) -> Scalar:
        asked.append(name)
        return distribution.at(0.0)

    assert resolve(expressions, first) == {"a": 1, "b": 0.0, "c": 7}
    assert asked == ["a", "b[1]", "c[else]"]
    assert [name for key, value in expressions.items() for name, _ in leaves(value, key)] == [
        "a",
        "b[1]",
        "c",
        "c[else]",
    ]


def test_a_condition_may_ask_about_a_later_field() -> None:
    expressions: dict[str, Expression] = {"early": When((("late", ("x",)),), 1, 2), "late": Choice(("x", "y"))}
    assert resolve(expressions, lambda name, d: d.at(0.0)) == {"early": 1, "late": "x"}
    assert resolve(expressions, lambda name, d: d.at(0.9)) == {"early": 2, "late": "y"}


def test_combinations_cross_what_applies_and_nothing_twice() -> None:
    expressions: dict[str, Expression] = {
        "a": Grid((1, 2, 3)),
        "b": When((("a", (1, 3)),), Grid(("x", "y")), "none"),
        "c": Choice((True, False)),
    }
    assert [tuple(c.values()) for c in combinations(expressions, (Grid,))] == [
        (1, "x"), (1, "y"), (2,), (3, "x"), (3, "y"),
    ]  # fmt: skip
    crossed = list(combinations(expressions, (Grid, Choice)))
    assert len(crossed) == 10 == len({tuple(sorted(c.items())) for c in crossed})
    assert list(combinations({"a": 1, "b": Uniform(0, 1)}, (Grid,))) == [{}]


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_without_conditions_the_combinations_are_the_product(lengths: list[int]) -> None:
    expressions: dict[str, Expression] = {
        str(index): Grid(tuple(range(length))) for index, length in enumerate(lengths)
    }
    found = [tuple(c.values()) for c in combinations(expressions, (Grid,))]
    assert found == list(np.ndindex(*lengths))
