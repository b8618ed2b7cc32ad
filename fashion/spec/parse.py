"""Turns the values of a YAML file, or of a recorded spec, into typed fields, and collects every problem on the way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from fashion.errors import Problem, nearest
from fashion.spec.fields import (
    NEVER_SAMPLED,
    SAMPLED,
    SETTINGS,
    FieldRule,
    NotAllowedError,
    describe,
    sampled_rules,
    section_rules,
    show,
)
from fashion.spec.space import Choice, Expression, Grid, Int, LogUniform, Scalar, Switch, Uniform, When, case_name
from fashion.spec.synonyms import meant
from fashion.spec.yaml_lines import Document, Path

KINDS = ("choice", "grid", "uniform", "loguniform", "int")


class Parser:
    """Reads one document. Problems are appended to `problems`; what can't be read is left out of the methods'
    results."""

    def __init__(self, document: Document, problems: list[Problem]) -> None:
        self.document = document
        self.problems = problems

    def problem(self, path: Path, rule: str, value: Any = ..., fix: str = "") -> None:
        self.problems.append(Problem(self.document.place(path), rule, "" if value is ... else show(value), fix))

    def mapping(self, raw: Any, path: Path, known: tuple[str, ...] | list[str], what: str) -> dict[str, Any]:
        """The known keys of a mapping; any other key is a problem."""
        if raw is None:
            return {}
        if not isinstance(raw, Mapping):
            self.problem(path, f"must be a mapping of {what}", raw)
            return {}
        for key in raw:
            if key not in known:
                fix = self._elsewhere(key) or nearest(key, known) or f"Known: {', '.join(known)}"
                self.problem((*path, key), f"unknown {what.removesuffix('s')}", ..., fix)
        return {key: value for key, value in raw.items() if key in known}

    def _elsewhere(self, key: str) -> str:
        """The full name of a field that was written in the wrong section, or under a name that others give it."""
        names = [f"{section}.{name}" for section in (*SAMPLED, *SETTINGS) for name in section_rules(section)]
        name = next((name for name in names if name.split(".")[1] == key), meant(key))
        return f"Did you mean {name}?" if name else ""

    # -- sampled sections

    def fields(self, section: str, raw: Any) -> dict[str, Expression]:
        """Dotted name -> expression of every valid field of data, model or train, defaults filled in."""
        rules = section_rules(section)
        written = self.mapping(raw, (section,), list(rules), "fields")
        result: dict[str, Expression] = {}
        for name, rule in rules.items():
            if name in written:
                before = len(self.problems)
                expression = self.expression(rule, written[name], (section, name))
                if len(self.problems) == before:  # otherwise rules between fields would repeat this problem
                    result[rule.name] = expression
            elif rule.required:
                fix = f"Add {name}: to {section}: {rule.info.description}"
                self.problem((section,), f"{rule.name} is missing", ..., fix)
            else:
                result[rule.name] = rule.default
        return result

    def expression(self, rule: FieldRule, raw: Any, path: Path) -> Expression:
        """A value, a distribution or a condition. Problems inside it are recorded at their own places; what is returned
        then does not matter, since the spec is refused."""
        if not isinstance(raw, Mapping) or rule.mapping:
            value: Scalar = self.value(rule, raw, path)
            return value
        if rule.name in NEVER_SAMPLED:
            self.problem(path, "can't be sampled: one sweep is over one data set, read one way", raw)
            return ""
        if "when" in raw:
            return self.when(rule, raw, path)
        if "switch" in raw:
            return self.switch(rule, raw, path)
        return self.distribution(rule, raw, path)

    def value(self, rule: FieldRule, raw: Any, path: Path) -> Any:
        try:
            return rule.check(raw)
        except NotAllowedError as error:
            self.problem(path, error.rule, raw, error.fix)
            return None

    def distribution(self, rule: FieldRule, raw: Mapping[str, Any], path: Path) -> Expression:
        kinds = [kind for kind in KINDS if kind in raw]
        if len(kinds) != 1:
            known = (*KINDS, "when", "switch")
            fix = next((hint for key in raw if (hint := nearest(key, known))), f"Known: {', '.join(known)}")
            fix = f"Keep one of {', '.join(kinds)}" if kinds else fix
            self.problem(path, "must be a value or one distribution", dict(raw), fix)
            return None
        kind = kinds[0]
        extra = ("step", "log") if kind == "int" else ()
        self.mapping(raw, path, [kind, *extra], "keys")
        at = (*path, kind)
        items = raw[kind]
        if not isinstance(items, list) or not items:
            example = "[1, 10]" if kind == "int" else "[0.001, 0.1]" if "uniform" in kind else "[first, second]"
            self.problem(at, "needs a list", items, f"For example {{{kind}: {example}}}")
            return None
        if kind in ("choice", "grid"):
            return self.choice(rule, kind, items, at)
        return self.range(rule, kind, items, raw, at)

    def choice(self, rule: FieldRule, kind: str, items: list[Any], at: Path) -> Expression:
        before = len(self.problems)
        values = tuple(self.value(rule, item, (*at, index)) for index, item in enumerate(items))
        if len(self.problems) == before:
            names = [case_name(value) for value in values]
            for index, name in enumerate(names):
                if name in names[:index]:
                    self.problem((*at, index), "this value is listed twice", items[index], "Remove one")
        return (Choice if kind == "choice" else Grid)(values)

    def range(self, rule: FieldRule, kind: str, items: list[Any], raw: Mapping[str, Any], at: Path) -> Expression:
        if not rule.numeric:
            fix = f"List values: {{choice: {show(rule.words or [True, False])}}}"
            self.problem(at, f"must be {describe(rule.schema)}, which has no ranges", items, fix)
            return None
        numbers = [item for item in items if isinstance(item, int | float) and not isinstance(item, bool)]
        if len(items) != 2 or len(numbers) != 2:
            self.problem(at, "needs two numbers, lowest and highest", items)
            return None
        if rule.whole_numbers and kind != "int":
            fix = "{int: " + show([int(item) for item in items]) + (", log: true}" if kind == "loguniform" else "}")
            self.problem(at, f"{rule.name} takes whole numbers only", items, f"Write {fix}")
            return None
        before = len(self.problems)
        lo, hi = (self.value(rule, item, (*at, index)) for index, item in enumerate(items))
        if len(self.problems) > before:
            return None
        if not lo < hi:
            fix = f"Write {show([hi, lo])}" if hi < lo else "Write the value alone"
            self.problem(at, "the first number must be below the second", items, fix)
            return None
        if kind == "uniform":
            return Uniform(lo, hi)
        if kind == "loguniform":
            if lo <= 0:
                self.problem(at, "loguniform needs numbers above 0", items, "Use a small positive number, or uniform")
                return None
            return LogUniform(lo, hi)
        return self.whole(items, raw, at)

    def whole(self, items: list[Any], raw: Mapping[str, Any], at: Path) -> Expression:
        path, step, log = at[:-1], raw.get("step", 1), raw.get("log", False)
        if not all(isinstance(item, int) for item in items):
            self.problem(at, "int needs whole numbers", items, "Use uniform for real numbers")
        elif isinstance(step, bool) or not isinstance(step, int) or step < 1:
            self.problem((*path, "step"), "must be a whole number of at least 1", step)
        elif not isinstance(log, bool):
            self.problem((*path, "log"), "must be true or false", log)
        elif log and step != 1:
            self.problem((*path, "step"), "step and log: true exclude each other", step, "Remove one")
        elif log and items[0] < 1:
            self.problem(at, "int with log: true needs numbers of at least 1", items)
        elif step > items[1] - items[0]:
            self.problem((*path, "step"), "the step is larger than the range", step, "Only one value could be drawn")
        else:
            return Int(items[0], items[1], step, log)
        return None

    # -- conditions

    def when(self, rule: FieldRule, raw: Mapping[str, Any], path: Path) -> Expression:
        conditions = []
        asked = raw["when"]
        if not isinstance(asked, Mapping) or not asked:
            example = "For example {when: {train.optimizer: sgd}, uniform: [0.8, 0.99]}"
            self.problem((*path, "when"), "needs a mapping of fields to values", asked, example)
            asked = {}
        for name, wanted in asked.items():
            other = self.other(rule, name, (*path, "when", name))
            if other is not None:
                listed = wanted if isinstance(wanted, list) else [wanted]
                at: Path = (*path, "when", name)
                values = tuple(self.value(other, item, at) for item in listed)
                if not values:
                    self.problem(at, "needs at least one value", wanted)
                conditions.append((name, values))
        rest = {key: value for key, value in raw.items() if key not in ("when", "else")}
        if "value" in rest:
            self.mapping(rest, path, ["value"], "keys")
            then = self.expression(rule, rest["value"], (*path, "value"))
        elif rest:
            then = self.expression(rule, rest, path)
        else:
            self.problem(path, "gives a condition without a value", dict(raw), "Add value: or a distribution")
            then = None
        return When(tuple(conditions), then, self.otherwise(rule, raw, path))

    def switch(self, rule: FieldRule, raw: Mapping[str, Any], path: Path) -> Expression:
        self.mapping(raw, path, ["switch", "cases", "else"], "keys")
        name, cases = raw["switch"], raw.get("cases")
        other = self.other(rule, name, (*path, "switch"))
        if not isinstance(cases, Mapping) or not cases:
            example = "For example {switch: train.optimizer, cases: {sgd: 0.1, adam: 0.001}}"
            self.problem(path, "needs cases", cases, example)
            cases = {}
        parsed = []
        for key, case in cases.items():
            at: Path = (*path, "cases", key)
            value = None
            if other is not None:
                try:
                    value = other.check_key(key)
                except NotAllowedError as error:
                    self.problem(at, f"{other.name} {error.rule}", key, error.fix)
            parsed.append((value, self.expression(rule, case, at)))
        return Switch(str(name), tuple(parsed), self.otherwise(rule, raw, path))

    def otherwise(self, rule: FieldRule, raw: Mapping[str, Any], path: Path) -> Expression:
        if "else" in raw:
            return self.expression(rule, raw["else"], (*path, "else"))
        if rule.required:
            self.problem(path, f"{rule.name} has no default for where the condition does not hold", ..., "Add else:")
        return None if rule.required else rule.default

    def other(self, rule: FieldRule, name: Any, path: Path) -> FieldRule | None:
        """The rule of the field that a condition asks about; None, and a problem, if there is no such field."""
        rules = sampled_rules()
        if name == rule.name:
            self.problem(path, "a condition can't ask about the field itself", name)
        elif not isinstance(name, str) or name not in rules:
            short = [full for full in rules if full.split(".")[1] == name] or [
                full for full in rules if full == meant(str(name))
            ]
            close = nearest(str(name), list(rules), "Write section.field, for example train.optimizer")
            fix = f"Did you mean {short[0]}?" if short else close
            self.problem(path, "unknown field", name, fix)
        else:
            return rules[name]
        return None

    # -- settings

    def settings(self, section: str, raw: Any) -> tuple[Any, set[str]]:
        """The search, scheduler or resources object (None if it has problems) and the names of the fields written."""
        rules = section_rules(section)
        written = self.mapping(raw, (section,), list(rules), "fields")
        before = len(self.problems)
        for name, value in written.items():
            try:
                rules[name].check(value)
            except NotAllowedError as error:
                self.problem((section, name), error.rule, value, error.fix)
        if len(self.problems) > before:
            return None, set(written)
        try:
            return SETTINGS[section](**written), set(written)
        except ValidationError as error:
            for detail in error.errors():
                rule = detail["msg"].removeprefix("Value error, ")
                field = next((name for name in rules if rule.startswith(name) and name in written), None)
                self.problem((section, field) if field else (section,), rule, written[field] if field else ...)
            return None, set(written)
