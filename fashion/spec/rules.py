"""Rules that need more than one field: conditions that can hold, and grids that can be crossed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from fashion.spec.fields import show
from fashion.spec.space import (
    Choice,
    Expression,
    Grid,
    Scalar,
    Switch,
    When,
    can_be,
    case_name,
    dependencies,
    leaves,
    to_json,
)
from fashion.spec.yaml_lines import Document, Path

if TYPE_CHECKING:
    from fashion.spec.sweep_spec import SweepSpec

MOST_COMBINATIONS = 100_000


class OnProblem(Protocol):
    def __call__(self, path: Path, rule: str, value: Any = ..., fix: str = "") -> None: ...


def cycles(expressions: Mapping[str, Expression], report: OnProblem) -> None:
    """Report fields that wait for each other's values."""
    reported: set[str] = set()
    for name in expressions:
        cycle = _cycle(expressions, name)
        if cycle and not reported & set(cycle):
            reported |= set(cycle)
            report(_path(name), "fields depend on each other in a circle", ..., " -> ".join(cycle))


def _cycle(expressions: Mapping[str, Expression], start: str) -> list[str]:
    """The chain of dependencies that leads from `start` back to it; empty if there is none."""
    trails, seen = [[start]], {start}
    while trails:
        trail = trails.pop()
        for name in dependencies(expressions.get(trail[-1])):
            if name == start:
                return [*trail, name]
            if name not in seen:
                seen.add(name)
                trails.append([*trail, name])
    return []


def reachable(expressions: Mapping[str, Expression], document: Document, report: OnProblem) -> None:
    """Report conditions that no trial can meet: most often a value remembered wrongly. Where --set fixes the field that
    a condition asks about, the other cases may be idle."""
    for name, expression in expressions.items():
        for path, other, value in _asked(expression, _path(name)):
            idle = _path(other) in document.overrides
            if other in expressions and not idle and not can_be(expressions[other], value):
                now = expressions[other]
                fix = f"{other} is {show(to_json(now))}"
                report(path, f"never applies: {other} is never {show(value)} in this spec", ..., fix)


def _asked(expression: Expression, path: Path) -> Iterator[tuple[Path, str, Scalar]]:
    """Each (place, field, value) that a condition asks for."""
    if isinstance(expression, When):
        for name, values in expression.conditions:
            yield from (((*path, "when", name), name, value) for value in values)
        yield from _asked(expression.then, (*path, "value"))
        yield from _asked(expression.otherwise, (*path, "else"))
    elif isinstance(expression, Switch):
        for value, case in expression.cases:
            yield (*path, "cases", case_name(value)), expression.on, value
            yield from _asked(case, (*path, "cases", case_name(value)))
        yield from _asked(expression.otherwise, (*path, "else"))


def crossing(spec: SweepSpec, report: OnProblem) -> None:
    """What the search method crosses must be lists of values that don't depend on chance."""
    listed = True
    for name, expression in spec.expressions.items():
        for dimension, distribution in leaves(expression, name):
            if spec.search.exhaustive and not isinstance(distribution, Choice):
                fix = "List values, or use search.method random"
                report(
                    _path(name),
                    f"method {spec.search.method} needs choice or grid everywhere",
                    distribution.to_json(),
                    fix,
                )
                listed = False
            if spec.search.crossed == (Grid,) and isinstance(distribution, Grid) and dimension != name:
                for other in _drawn_at_random(spec.expressions, expression):
                    rule = f"a grid can't be crossed where it depends on {other}, which is drawn at random"
                    report(_path(name), rule, ..., f"Make {other} a grid too, or write choice here")
                    listed = False
    if listed and len(spec.combinations) > MOST_COMBINATIONS:
        rule = f"the grids have more than {MOST_COMBINATIONS:,} combinations"
        report(("search",), rule, ..., "List fewer values, or use choice and method random")


def fitted_once(spec: SweepSpec, report: OnProblem) -> None:
    """Trials that are trained on the validation images can't be ranked by them: there may be one."""
    fit_on = spec.expressions["train.fit_on"]
    if not isinstance(fit_on, str):
        report(_path("train.fit_on"), "must be the same in all trials", to_json(fit_on))
    elif fit_on != "train" and spec.total_trials > 1:
        rule = f"goes with search.trials: 1, since no validation score could rank {spec.total_trials}"
        report(_path("train.fit_on"), rule, fit_on, "Sweep without it, then add --refit to `run`")


def _drawn_at_random(expressions: Mapping[str, Expression], expression: Expression) -> set[str]:
    """The fields behind the expression's conditions, however far, that are sampled."""
    found: set[str] = set()
    for other in dependencies(expression):
        if any(not isinstance(leaf, Grid) for _, leaf in leaves(expressions[other], other)):
            found.add(other)
        found |= _drawn_at_random(expressions, expressions[other])
    return found


def _path(name: str) -> Path:
    return tuple(name.split("."))
