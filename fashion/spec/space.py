"""The search space: distributions of one field, conditions between fields, and how a number in [0, 1) becomes a value.

Sampling has no generator state. The draw of dimension `name` in trial `number` is a hash of (seed, number, name), so
that adding a dimension leaves every other dimension's draws as they were, and a trial can be recomputed on its own. A
hash stays the same for years, in which a run may be resumed; numpy's generators may change their streams.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic_core import to_jsonable_python

Scalar = str | int | float | bool | None


def same(left: Scalar, right: Scalar) -> bool:
    """Equality that keeps booleans apart from 0 and 1."""
    return left == right and isinstance(left, bool) == isinstance(right, bool)


def unit(seed: int, number: int, name: str) -> float:
    """The draw in [0, 1) of dimension `name` in trial `number`, 53 bits of a SHA-256."""
    digest = hashlib.sha256(f"{seed}/{number}/{name}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


class Distribution:
    """The values of one field. `at` maps a uniform number in [0, 1) to one of them."""

    def at(self, u: float) -> Scalar:
        raise NotImplementedError

    def contains(self, value: Scalar) -> bool:
        raise NotImplementedError

    def to_json(self) -> dict[str, Any]:
        """The form in which a spec writes it."""
        raise NotImplementedError


def _number(value: Scalar) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclass(frozen=True)
class Choice(Distribution):
    """One of the values, all equally likely."""

    values: tuple[Scalar, ...]

    def at(self, u: float) -> Scalar:
        return self.values[min(int(u * len(self.values)), len(self.values) - 1)]

    def contains(self, value: Scalar) -> bool:
        return any(same(value, mine) for mine in self.values)

    def to_json(self) -> dict[str, Any]:
        return {"choice": list(self.values)}


@dataclass(frozen=True)
class Grid(Choice):
    """Every value in turn, crossed with the other grids."""

    def to_json(self) -> dict[str, Any]:
        return {"grid": list(self.values)}


@dataclass(frozen=True)
class Uniform(Distribution):
    """A real number between lo and hi."""

    lo: float
    hi: float

    def at(self, u: float) -> float:
        return min(max(self.lo + u * (self.hi - self.lo), self.lo), self.hi)

    def contains(self, value: Scalar) -> bool:
        return _number(value) and self.lo <= value <= self.hi  # type: ignore[operator]

    def to_json(self) -> dict[str, Any]:
        return {"uniform": [self.lo, self.hi]}


@dataclass(frozen=True)
class LogUniform(Distribution):
    """A real number between lo > 0 and hi whose logarithm is uniform."""

    lo: float
    hi: float

    def at(self, u: float) -> float:
        value = math.exp(math.log(self.lo) + u * (math.log(self.hi) - math.log(self.lo)))
        return min(max(value, self.lo), self.hi)

    def contains(self, value: Scalar) -> bool:
        return _number(value) and self.lo <= value <= self.hi  # type: ignore[operator]

    def to_json(self) -> dict[str, Any]:
        return {"loguniform": [self.lo, self.hi]}


@dataclass(frozen=True)
class Int(Distribution):
    """A whole number from lo to hi, both included, in steps of `step`; with `log`, small numbers are likelier."""

    lo: int
    hi: int
    step: int = 1
    log: bool = False

    def at(self, u: float) -> int:
        if self.log:
            value = math.exp(math.log(self.lo) + u * (math.log(self.hi + 1) - math.log(self.lo)))
            return min(max(int(value), self.lo), self.hi)
        count = (self.hi - self.lo) // self.step + 1
        return self.lo + self.step * min(int(u * count), count - 1)

    def contains(self, value: Scalar) -> bool:
        if not _number(value) or value != int(value):  # type: ignore[arg-type]
            return False
        whole = int(value)
        return self.lo <= whole <= self.hi and (whole - self.lo) % self.step == 0

    def to_json(self) -> dict[str, Any]:
        form: dict[str, Any] = {"int": [self.lo, self.hi]}
        if self.step != 1:
            form["step"] = self.step
        if self.log:
            form["log"] = True
        return form


@dataclass(frozen=True)
class When:
    """`then` where every named field has one of the listed values, `otherwise` elsewhere."""

    conditions: tuple[tuple[str, tuple[Scalar, ...]], ...]
    then: Expression
    otherwise: Expression

    def to_json(self) -> dict[str, Any]:
        then = self.then.to_json() if isinstance(self.then, Distribution) else {"value": to_json(self.then)}
        asked = {name: list(values) for name, values in self.conditions}
        return {"when": asked, **then, "else": to_json(self.otherwise)}


@dataclass(frozen=True)
class Switch:
    """The case of another field's value; `otherwise` where no case names it."""

    on: str
    cases: tuple[tuple[Scalar, Expression], ...]
    otherwise: Expression

    def to_json(self) -> dict[str, Any]:
        cases = {case_name(value): to_json(then) for value, then in self.cases}
        return {"switch": self.on, "cases": cases, "else": to_json(self.otherwise)}


Expression = Scalar | Distribution | When | Switch


def case_name(value: Scalar) -> str:
    """How a value is written as the key of a case: null and booleans as in YAML."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def to_json(expression: Expression) -> Any:
    if isinstance(expression, Distribution | When | Switch):
        return expression.to_json()
    return to_jsonable_python(expression)  # data.split is a mapping, data.attributes a list


def dependencies(expression: Expression) -> Iterator[str]:
    """The fields whose values decide which part of the expression applies."""
    if isinstance(expression, When):
        for name, _ in expression.conditions:
            yield name
        yield from dependencies(expression.then)
        yield from dependencies(expression.otherwise)
    elif isinstance(expression, Switch):
        yield expression.on
        for _, case in expression.cases:
            yield from dependencies(case)
        yield from dependencies(expression.otherwise)


def leaves(expression: Expression, name: str) -> Iterator[tuple[str, Distribution]]:
    """Every distribution with the name of its dimension: `train.lr`, `train.lr[sgd]`, `train.momentum[else]`."""
    if isinstance(expression, Distribution):
        yield name, expression
    elif isinstance(expression, When):
        yield from leaves(expression.then, name)
        yield from leaves(expression.otherwise, f"{name}[else]")
    elif isinstance(expression, Switch):
        for value, case in expression.cases:
            yield from leaves(case, f"{name}[{case_name(value)}]")
        yield from leaves(expression.otherwise, f"{name}[else]")


def can_be(expression: Expression, value: Scalar) -> bool:
    """Whether some branch of the expression could take the value."""
    if isinstance(expression, Distribution):
        return expression.contains(value)
    if isinstance(expression, When):
        return can_be(expression.then, value) or can_be(expression.otherwise, value)
    if isinstance(expression, Switch):
        return any(can_be(case, value) for _, case in expression.cases) or can_be(expression.otherwise, value)
    return same(expression, value)


Suggest = Callable[[str, Distribution], Scalar]


def resolve(
    expressions: Mapping[str, Expression], suggest: Suggest, names: Iterable[str] | None = None
) -> dict[str, Scalar]:
    """One value for each field, or for the fields `names` and those that their conditions ask about.
    `suggest(dimension, distribution)` is called only for the dimensions that apply."""
    values: dict[str, Scalar] = {}

    def field(name: str) -> Scalar:
        if name not in values:
            values[name] = evaluate(expressions[name], name)
        return values[name]

    def evaluate(expression: Expression, name: str) -> Scalar:
        if isinstance(expression, Distribution):
            return suggest(name, expression)
        if isinstance(expression, When):
            if all(any(same(field(other), value) for value in allowed) for other, allowed in expression.conditions):
                return evaluate(expression.then, name)
            return evaluate(expression.otherwise, f"{name}[else]")
        if isinstance(expression, Switch):
            chosen = field(expression.on)
            for value, case in expression.cases:
                if same(value, chosen):
                    return evaluate(case, f"{name}[{case_name(value)}]")
            return evaluate(expression.otherwise, f"{name}[else]")
        return expression

    for name in expressions if names is None else names:
        field(name)
    return values


def combinations(expressions: dict[str, Expression], crossed: tuple[type[Choice], ...]) -> Iterator[dict[str, Scalar]]:
    """Every combination of the dimensions of a `crossed` type, the last varying fastest; a dimension that does not
    apply in a combination is not crossed. Yields dimension -> value, or one empty mapping if nothing is crossed."""

    def once(pick: Pick) -> dict[str, Scalar]:
        chosen: dict[str, Scalar] = {}

        def suggest(name: str, distribution: Distribution) -> Scalar:
            if not isinstance(distribution, Choice) or type(distribution) not in crossed:
                return distribution.at(0.0)
            chosen[name] = pick(distribution.values)
            return chosen[name]

        resolve(expressions, suggest)
        return chosen

    return _every(once)


def joint_values(
    expressions: Mapping[str, Expression], names: Sequence[str], values: Callable[[str, Distribution], Sequence[Scalar]]
) -> Iterator[dict[str, Scalar]]:
    """Every way in which the fields `names`, and those that their conditions ask about, can have values together, where
    a dimension has one of `values(dimension, distribution)`. Yields field -> value."""
    return _every(lambda pick: resolve(expressions, lambda name, each: pick(values(name, each)), names))


Pick = Callable[[Sequence[Scalar]], Scalar]
T = TypeVar("T")


def _every(once: Callable[[Pick], T]) -> Iterator[T]:
    """What `once(pick)` returns for every way in which `pick(values)` can choose, the last choice varying fastest. What
    `once` asks for may depend on what was picked before."""
    counters: list[list[int]] = []  # [index, length] of each choice, in the order in which `once` asks for them
    while True:
        asked = 0

        def pick(values: Sequence[Scalar]) -> Scalar:
            nonlocal asked
            if asked == len(counters):
                counters.append([0, len(values)])
            asked += 1
            return values[counters[asked - 1][0]]

        yield once(pick)
        while counters and counters[-1][0] + 1 == counters[-1][1]:
            counters.pop()
        if not counters:
            return
        counters[-1][0] += 1
