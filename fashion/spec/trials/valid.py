"""Whether every trial of a sweep keeps the rules between its fields, however many there are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

from pydantic import ValidationError

from fashion.errors import Problem
from fashion.spec.fields import SAMPLED, section_rules, show
from fashion.spec.space import joint_values
from fashion.spec.trials.possible import MOST_DRAWN, extremes, few
from fashion.spec.trials.relations import FIELD_RULES, SECTION_RULES, BrokenRule, FieldRelation, in_words
from fashion.spec.yaml_lines import Document

if TYPE_CHECKING:
    from fashion.spec.sweep_spec import SweepSpec

MOST_SEARCHED = 20_000  # trials in which one that breaks a rule is looked for: two seconds
MOST_TOGETHER = 100_000  # ways in which the extremes of a rule's fields go together: a few seconds


def every_trial(spec: SweepSpec, document: Document, problems: list[Problem]) -> None:
    """Report each rule between fields that some trial breaks: one problem for each rule.

    At most MOST_DRAWN trials are drawn, and under an adaptive method exactly so many. If there are more, or if they are
    not known, the space is asked whether the rule can be broken at all."""
    total = min(spec.total_trials, MOST_DRAWN) if not spec.search.adaptive else MOST_DRAWN
    broken: dict[str, list[tuple[int, BrokenRule]]] = {}
    for number in range(total):
        for each in _broken(spec, number):
            broken.setdefault(each.kind, []).append((number, each))
    for cases in broken.values():
        number, first = cases[0]
        fix = ""
        if len(cases) < total:
            share = f"{len(cases)} of {total} trials, the first of them trial {number}"
            fix = f"This concerns {share}: when or switch can keep such values apart"
        problems.append(_problem(first, document, fix))
    if not few(spec):
        problems += [
            _problem(each, document, f"{where}: when or switch can keep such values apart")
            for each, where in _beyond(spec)
            if each.kind not in broken
        ]


def _problem(broken: BrokenRule, document: Document, fix: str) -> Problem:
    section, rule = broken.section, broken.rule
    written = document.value.get(section) or {}
    named = [word for word in re.findall(r"\w+", rule) if word in section_rules(section) and word in written]
    return Problem(document.place((section, *named[:1])), rule, fix=fix)


def _broken(spec: SweepSpec, number: int) -> list[BrokenRule]:
    """The rules that the trial breaks."""
    try:
        trial = spec.drawn(number)
    except ValidationError as error:
        return in_words(error)
    flat = {f"{name}.{field}": value for name in SAMPLED for field, value in getattr(trial, name)}
    return [each for rule in FIELD_RULES for each in rule.broken(flat, spec.resources.workers)]


def _beyond(spec: SweepSpec) -> Iterator[tuple[BrokenRule, str]]:
    """The rules that values of the space can break, with where: in a trial, if that is found in a moment.

    Of a sweep whose trials are known and that can be searched to its end, only what a trial breaks."""
    values, workers = extremes(spec.expressions), spec.resources.workers
    told: set[str] = set()  # a section's validator stops at the first of its rules, whichever is asked about
    for rule in (*SECTION_RULES, *FIELD_RULES):
        found: dict[str, tuple[BrokenRule, str]] = {}
        for assigned in islice(joint_values(spec.expressions, rule.fields, values), MOST_TOGETHER):
            listed = " and ".join(f"{name} {show(assigned[name])}" for name in rule.fields)
            for each in rule.broken(assigned, workers):
                if each.kind not in told:
                    found.setdefault(each.kind, (each, f"The space allows {listed} together"))
        told |= set(found)
        if found and not spec.search.adaptive:
            number = _first_to_break(spec, rule)
            if number is not None:
                where = f"This concerns trial {number} and perhaps others"
                yield from ((each, where) for each in rule.broken(spec.values(number, rule.fields), workers))
                continue
            if spec.total_trials <= MOST_SEARCHED:
                continue
        yield from found.values()


def _first_to_break(spec: SweepSpec, rule: FieldRelation) -> int | None:
    """The first of MOST_SEARCHED trials that breaks the rule."""
    for number in range(MOST_DRAWN, min(spec.total_trials, MOST_SEARCHED)):
        if rule.broken(spec.values(number, rule.fields), spec.resources.workers):
            return number
    return None
