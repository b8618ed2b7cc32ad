"""The extremes of a space decide whether a rule that compares numbers can be broken in it."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from fashion.spec.space import Choice, Distribution, Expression, Int, Scalar, Switch, Uniform, When, joint_values
from fashion.spec.trials.possible import every, extremes


def space(random: random.Random) -> dict[str, Expression]:
    """Three fields of whole numbers, the later of which may depend on the earlier."""

    def leaf() -> Expression:
        low = random.randint(1, 6)
        return random.choice(
            (low, Choice(tuple(random.sample(range(1, 9), random.randint(2, 5)))), Int(low, low + random.randint(1, 4)))
        )

    first, second = leaf(), leaf()
    third: Expression = leaf()
    if random.random() < 0.5:
        second = When((("a", (random.randint(1, 8), random.randint(1, 8))),), leaf(), leaf())
    if random.random() < 0.5:
        third = Switch(random.choice("ab"), tuple((n, leaf()) for n in random.sample(range(1, 9), 2)), leaf())
    return {"a": first, "b": second, "c": third}


RULES: dict[str, Callable[[Mapping[str, Any]], bool]] = {
    "a <= b": lambda each: each["a"] <= each["b"],
    "c < a": lambda each: each["c"] < each["a"],
    "b == c": lambda each: each["b"] == each["c"],
    "a > 1 or c <= b": lambda each: each["a"] > 1 or each["c"] <= each["b"],
}


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_is_broken_at_the_extremes_if_it_is_broken_anywhere(rule: str) -> None:
    generator, holds, broken = random.Random(rule), RULES[rule], 0
    for _ in range(400):
        fields = space(generator)
        names = ("a", "b", "c")
        everywhere = all(holds(each) for each in joint_values(fields, names, every))
        ends = [*joint_values(fields, names, extremes(fields))]
        assert everywhere == all(holds(each) for each in ends), fields
        broken += not everywhere
    assert broken > 20


def test_the_extremes_of_a_large_space_are_few() -> None:
    fields: Mapping[str, Expression] = {
        "a": Choice(tuple(range(1000))),
        "b": Int(1, 100_000),
        "c": Uniform(0.0, 1.0),
        "d": Choice(("x", "y", "z")),
    }
    assert len([*joint_values(fields, tuple(fields), extremes(fields))]) == 2 * 2 * 2 * 3


def test_words_and_null_are_kept_and_so_is_what_conditions_ask_about() -> None:
    fields: dict[str, Expression] = {
        "a": Choice((None, 5, 6, 7, 8, 9)),
        "b": When((("a", (6, 9)),), 1, 2),
    }
    values = extremes(fields)
    assert [*values("a", fields["a"] if isinstance(fields["a"], Distribution) else Choice(()))] == [None, 5, 6, 8, 9]


def test_the_ends_of_a_range_of_real_numbers_are_not_drawn() -> None:
    low, high = every("a", Uniform(0.0, 5.0))
    assert 0.0 < float(low or 0) < float(high or 0) < 5.0


def test_only_the_named_fields_are_looked_at() -> None:
    fields: dict[str, Expression] = {"a": Choice((1, 2)), "b": Choice((3, 4)), "c": When((("b", (3,)),), 5, 6)}
    found: list[dict[str, Scalar]] = [*joint_values(fields, ("c",), every)]
    assert found == [{"b": 3, "c": 5}, {"b": 4, "c": 6}]
