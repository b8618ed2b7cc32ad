"""Which values fields can have together in the trials of a sweep, at a cost that does not grow with their number.

The trials of a small sweep are looked at one by one. Of a large or an adaptive one the space is looked at instead: its
conditions are followed, and each dimension takes the values that `extremes` or `every` leaves of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from fashion.spec.space import (
    Choice,
    Distribution,
    Expression,
    Int,
    LogUniform,
    Scalar,
    Switch,
    Uniform,
    When,
    joint_values,
    same,
)

if TYPE_CHECKING:
    from fashion.spec.sweep_spec import SweepSpec

MOST_DRAWN = 1_000  # trials that are looked at one by one
Values = Callable[[str, Distribution], Sequence[Scalar]]


def few(spec: SweepSpec) -> bool:
    """Whether the sweep's trials are known and few enough to be looked at one by one."""
    return not spec.search.adaptive and spec.total_trials <= MOST_DRAWN


def together(spec: SweepSpec, names: Sequence[str], values: Values) -> Iterator[dict[str, Scalar]]:
    """The values that the fields `names` have together in some trial, each once; the fields that their conditions ask
    about come along. Of a sweep that is not `few`, values that they can have."""
    found = (
        (spec.values(number, names) for number in range(spec.total_trials))
        if few(spec)
        else joint_values(spec.expressions, names, values)
    )
    seen: set[tuple[tuple[type, Scalar], ...]] = set()
    for each in found:
        key = tuple((type(each[name]), each[name]) for name in names)
        if key not in seen:
            seen.add(key)
            yield each


def every(name: str, distribution: Distribution) -> Sequence[Scalar]:
    """All values of a dimension; of a range of real numbers its ends."""
    if isinstance(distribution, Choice):
        return distribution.values
    if isinstance(distribution, Int):
        return range(distribution.lo, distribution.hi + 1, 1 if distribution.log else distribution.step)
    assert isinstance(distribution, Uniform | LogUniform)
    return _ends(distribution)


def extremes(expressions: Mapping[str, Expression]) -> Values:
    """Of a dimension of numbers its least and its greatest value; of any other all values.

    That is enough for rules that compare numbers (a <= b, a == b, a > 0), which hold everywhere if they hold there. The
    values that some condition asks about are kept as well, and the extremes are those of the values between them, since
    other values may go with them.
    """
    asked: dict[str, list[Scalar]] = {}
    for expression in expressions.values():
        for name, value in _asked(expression):
            asked.setdefault(name, []).append(value)

    def values(name: str, distribution: Distribution) -> Sequence[Scalar]:
        named = asked.get(name.split("[")[0], [])
        if isinstance(distribution, Choice):
            return _apart(distribution.values, named)
        if isinstance(distribution, Int):
            kept = [value for value in named if distribution.contains(value)]
            whole = every(name, distribution)
            ends = [next((v for v in each if v not in kept), None) for each in (whole, reversed(whole))]
            return [*dict.fromkeys([*kept, *(end for end in ends if end is not None)])]
        assert isinstance(distribution, Uniform | LogUniform)
        return _ends(distribution)

    return values


def _apart(values: Sequence[Scalar], named: Sequence[Scalar]) -> Sequence[Scalar]:
    numbers = [v for v in values if _number(v) and not any(same(v, each) for each in named)]
    if len(numbers) <= 2:
        return values
    ends = (min(numbers, key=float), max(numbers, key=float))  # type: ignore[arg-type]
    return [value for value in values if value in ends or value not in numbers]


def _ends(distribution: Uniform | LogUniform) -> tuple[float, float]:
    """The least and the greatest number that lie between its bounds, which themselves are as good as never drawn."""
    return math.nextafter(distribution.lo, distribution.hi), math.nextafter(distribution.hi, distribution.lo)


def _number(value: Scalar) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _asked(expression: Expression) -> Iterator[tuple[str, Scalar]]:
    """Each (field, value) that a condition asks for."""
    inner: Iterable[Expression] = ()
    if isinstance(expression, When):
        yield from ((name, value) for name, values in expression.conditions for value in values)
        inner = (expression.then, expression.otherwise)
    elif isinstance(expression, Switch):
        yield from ((expression.on, value) for value, _ in expression.cases)
        inner = (*(case for _, case in expression.cases), expression.otherwise)
    for each in inner:
        yield from _asked(each)
