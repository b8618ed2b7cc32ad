"""A chart in text: where its points are, what it does with values far off, and that it fits."""

from __future__ import annotations

import math

import pytest

from fashion.display.reading.chart import ChartCurve, chart


def test_points_are_where_they_belong() -> None:
    assert chart([ChartCurve("loss", "*", {1: 4.0, 2: 2.0, 3: 0.0})], 3, 31, height=5) == [
        "       4 |***",
        "         |   *****",
        "       2 |        *****",
        "         |             *****",
        "       0 |                  ***",
        "         +---------------------",
        "          1         2         3",
        "          * loss",
    ]


def test_gaps_and_values_far_above() -> None:
    values = {1.0: 900.0, **{float(x): 1.0 + 0.01 * x for x in range(2, 40)}, 40.0: math.nan}
    lines = chart([ChartCurve("loss", "*", values)], 40, 80)
    assert lines[0].startswith("    1.38 |*")
    assert lines[-1].strip() == "* loss; 2 above the scale"
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("width", [20, 40, 80, 200])
@pytest.mark.parametrize("last", [1, 2, 50, 10_000])
def test_it_fits(width: int, last: int) -> None:
    values = {float(x): 1 / x for x in range(1, last + 1)}
    lines = chart([ChartCurve("train_loss", "o", values), ChartCurve("val_loss", "*", values)], last, width)
    assert max(len(line) for line in lines[:-1]) <= width
    assert lines[-2].split()[0] == "1"
    assert "o" not in "".join(lines[:-3]), "the later curve is drawn over the earlier"


def test_nothing_finite_is_no_chart() -> None:
    assert chart([ChartCurve("loss", "*", {1: math.nan})], 3, 80) == []
    assert chart([], 3, 80) == []


def test_one_constant_value_has_a_scale() -> None:
    lines = chart([ChartCurve("loss", "*", {1: 2.0, 2: 2.0})], 2, 40, height=5)
    assert set(lines[2][10:]) == {"*"}
