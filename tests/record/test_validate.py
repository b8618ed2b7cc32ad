"""What a record's files may hold: the rules that every reader relies on."""

from __future__ import annotations

import math
from typing import Any

import pytest

from fashion.record.validate import metric, number


@pytest.mark.parametrize("value", [0.5, 0, 1, -3.0, -7, 1e300, 10**300, "nan", "inf", "-inf"])
def test_a_metric_is_a_number_or_the_word_for_none(value: Any) -> None:
    assert metric(value)


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, 1e302, -1e302, 10**302, 10**400, True, None, "0.5", "NaN", [1.0], {}]
)
def test_nothing_else_is_a_metric(value: Any) -> None:
    assert not metric(value)


@pytest.mark.parametrize(
    ("value", "right"),
    [(0, True), (0.25, True), (2**59, True), (-1, False), (-0.1, False), (math.nan, False), (2**60, False),
     (math.inf, False), (True, False), ("1", False), (None, False)],
)  # fmt: skip
def test_a_duration_is_a_number_of_a_bearable_size(value: Any, right: bool) -> None:
    assert number(value) is right
