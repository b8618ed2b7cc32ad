"""A sweep spec: read once from YAML into a frozen `SweepSpec`, which yields every trial's configuration.

Unless the search method is adaptive, a trial is a pure function of (spec, number): of the C combinations of the crossed
dimensions, trial n takes number n modulo C. An adaptive method suggests the values instead: see `SweepSpec.build`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path as FilePath
from typing import Any

from fashion.bucket.address import is_address, parse_address
from fashion.config.base import OF_ITS_TIME
from fashion.config.trial import TrialConfig, of_its_time
from fashion.errors import Problem, SpecError, nearest
from fashion.spec import rules
from fashion.spec.fields import NAME, SAMPLED, TOP_LEVEL, NotAllowedError, check_home, section_rules
from fashion.spec.parse import Parser
from fashion.spec.settings import ResourcesConfig, SchedulerConfig, SearchConfig
from fashion.spec.space import (
    Distribution,
    Expression,
    Scalar,
    Suggest,
    Switch,
    When,
    combinations,
    leaves,
    resolve,
    to_json,
    unit,
)
from fashion.spec.synonyms import meant
from fashion.spec.trials.valid import every_trial
from fashion.spec.yaml_lines import Document, parse_yaml, read_yaml


@dataclass(frozen=True)
class SweepSpec:
    """`data`, `model` and `train` map every field to a value, a `Distribution` or a condition (`When`, `Switch`).

    `written` are the dotted names of those that the user gave; the others have their defaults.
    """

    name: str
    data: Mapping[str, Expression]
    model: Mapping[str, Expression]
    train: Mapping[str, Expression]
    search: SearchConfig
    scheduler: SchedulerConfig
    resources: ResourcesConfig
    storage: str
    written: frozenset[str] = field(default=frozenset(), compare=False)

    @cached_property
    def expressions(self) -> dict[str, Expression]:
        """Dotted name -> expression of every field, in the order of the configuration."""
        return {f"{section}.{name}": value for section in SAMPLED for name, value in getattr(self, section).items()}

    @cached_property
    def space(self) -> dict[str, Distribution]:
        """Dimension -> distribution. The dimension of an unconditional field has its dotted name (`train.lr`); branches
        of a condition are dimensions of their own: `train.lr[sgd]`, `train.momentum[else]`."""
        return dict(leaf for name, expression in self.expressions.items() for leaf in leaves(expression, name))

    @cached_property
    def fixed(self) -> dict[str, Scalar]:
        """Dotted name -> value of the fields that are the same in every trial, defaults included."""
        return {
            name: value
            for name, value in self.expressions.items()
            if not isinstance(value, Distribution | When | Switch)
        }

    @property
    def total_trials(self) -> int:
        return self.search.trials

    @cached_property
    def combinations(self) -> tuple[dict[str, Scalar], ...]:
        """The values of the dimensions that the search method crosses, in the order in which the trials take them; one
        empty combination if nothing is crossed."""
        return tuple(islice(combinations(self.expressions, self.search.crossed), rules.MOST_COMBINATIONS + 1))

    def trial(self, number: int) -> TrialConfig:
        """Trial `number`, counted from 0. Raises ValueError under an adaptive search method, which suggests the values
        itself, through `build`."""
        if self.search.adaptive:
            raise ValueError(f"search.method {self.search.method} suggests the values itself: use build")
        return self.drawn(number)

    def drawn(self, number: int) -> TrialConfig:
        """As `trial`; under an adaptive method an independent sample, in which loading looks for invalid
        combinations."""
        return self.build(self._drawing(number), number)

    def values(self, number: int, names: Sequence[str]) -> dict[str, Scalar]:
        """What `drawn` gives the fields `names`, and those that their conditions ask about: for looking at many
        trials."""
        return resolve(self.expressions, self._drawing(number), names)

    def _drawing(self, number: int) -> Suggest:
        crossed = self.combinations[number % len(self.combinations)]

        def suggest(name: str, distribution: Distribution) -> Scalar:
            return crossed[name] if name in crossed else distribution.at(unit(self.search.seed, number, name))

        return suggest

    def build(self, suggest: Suggest, number: int) -> TrialConfig:
        """The trial whose values `suggest(dimension, distribution)` chooses. It is called once for each dimension that
        applies, and for no other (define by run). Raises pydantic's ValidationError for an invalid combination."""
        sections: dict[str, dict[str, Scalar]] = {section: {} for section in SAMPLED}
        for name, value in resolve(self.expressions, suggest).items():
            section, field = name.split(".")
            sections[section][field] = value
        seed = int(unit(self.search.seed, number, "seed") * 2**31)
        return TrialConfig.model_validate({**sections, "seed": seed})

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, defaults included; `from_json` makes an equal spec of them."""
        sections = {
            section: {name: to_json(value) for name, value in getattr(self, section).items()} for section in SAMPLED
        }
        settings = {name: getattr(self, name).model_dump(mode="json") for name in ("search", "scheduler", "resources")}
        return {"name": self.name, **sections, **settings, "storage": self.storage}

    @classmethod
    def from_json(cls, form: Mapping[str, Any]) -> SweepSpec:
        """The spec that this or an earlier version recorded: fields that it lacks have the values of its time.

        Raises SpecError if another version of the package wrote a form that this one can't read."""
        problems: list[Problem] = []
        spec = _parse(Document("recorded spec", of_its_time(form)), problems, recorded=True)
        if spec is None or problems:
            raise SpecError("The recorded spec can't be read by this version:", problems)
        return spec

    def begun_as(self, recorded: SweepSpec) -> SweepSpec:
        """This spec, to go on with a sweep that was begun as `recorded`: fields that came later (OF_ITS_TIME) and are
        not written keep what they mean there, rather than this version's default."""
        spec = self
        for name in OF_ITS_TIME:
            section, field_name = name.split(".")
            if name not in self.written:
                changed: dict[str, Any] = {section: {**getattr(spec, section), field_name: recorded.expressions[name]}}
                spec = replace(spec, **changed)
        return spec

    def differences(self, other: SweepSpec) -> list[str]:
        """`train.lr: 0.1 -> 0.01` for each setting in which `other` differs; empty if they are equal."""
        mine, theirs = _flat(self.to_json()), _flat(other.to_json())
        return [f"{key}: {mine[key]} -> {theirs[key]}" for key in mine if mine[key] != theirs[key]]


def load_spec(path: str | FilePath, overrides: Sequence[str] = (), text: str | None = None) -> SweepSpec:
    """Read a spec. Each override is `section.field=value`, with the value in YAML. text: what the file will hold, if it
    is still to be written. Raises SpecError with every problem."""
    problems: list[Problem] = []
    document = read_yaml(path, problems) if text is None else parse_yaml(text, str(path), problems)
    for override in overrides:
        _override(document, override, problems)
    spec = _parse(document, problems, FilePath(path).stem)
    if spec is not None and not problems:
        every_trial(spec, document, problems)
    if spec is None or problems:
        count = f"{len(problems)} problems" if len(problems) > 1 else "1 problem"
        raise SpecError(f"{path}: {count}", sorted(problems, key=_line))
    return spec


def _line(problem: Problem) -> int:
    """The line of the file; 0 for a problem on the command line."""
    found = re.search(r":(\d+)( |$)", problem.place)
    return int(found[1]) if found else 0


def _override(document: Document, override: str, problems: list[Problem]) -> None:
    key, equals, text = override.partition("=")
    key = key.strip()
    place = f"--{key}" if key in ("name", "storage") else f"--set {key}"  # these have options of their own
    if not equals or not key:
        problems.append(Problem(f"--set {override}", "must be KEY=VALUE", fix="For example --set train.lr=0.01"))
        return
    path = tuple(key.split("."))
    names = [f"{section}.{name}" for section in TOP_LEVEL[1:-1] for name in section_rules(section)]
    if key not in ("name", "storage", *names):
        short = [name for name in names if name.endswith(f".{key}")] or [name for name in [meant(key)] if name]
        write = "Write section.field=value, for example train.lr=0.01"
        close = write if key in TOP_LEVEL else nearest(key, ["name", "storage", *names], write)
        problems.append(Problem(place, "unknown field", fix=f"Did you mean {short[0]}?" if short else close))
        return
    try:
        value = parse_yaml(text, place, problems).value
    except SpecError as error:
        problems.extend(Problem(place, problem.rule, text, problem.fix) for problem in error.problems)
        return
    if document.value is None:
        document.value = {}
    if not isinstance(document.value, dict):
        return
    section = document.value
    if len(path) == 2:
        if section.get(path[0]) is None:
            section[path[0]] = {}
        section = section[path[0]]
    if isinstance(section, dict):  # otherwise the file's own problem is reported there
        section[path[-1]] = value
        document.overrides[path] = place


def _parse(
    document: Document, problems: list[Problem], default_name: str = "", recorded: bool = False
) -> SweepSpec | None:
    parser = Parser(document, problems)
    if document.value is None or not isinstance(document.value, Mapping):
        rule = "the spec is empty" if document.value is None else "a spec is a mapping with data, model and train"
        problems.append(Problem(document.source, rule, fix="sweeps/quickstart.yaml is an example"))
        return None
    raw = parser.mapping(document.value, (), TOP_LEVEL, "sections")
    expressions = {section: parser.fields(section, raw.get(section)) for section in SAMPLED}
    together = {name: value for fields in expressions.values() for name, value in fields.items()}
    rules.cycles(together, parser.problem)
    if not recorded:
        rules.reachable(together, document, parser.problem)
    search, search_written = parser.settings("search", raw.get("search"))
    scheduler, _ = parser.settings("scheduler", raw.get("scheduler"))
    resources, _ = parser.settings("resources", raw.get("resources"))
    name, storage = raw.get("name", default_name), raw.get("storage", "runs")
    if not isinstance(name, str) or not re.fullmatch(NAME, name):
        rule = "must be up to 64 letters, digits, '.', '-' or '_', the first a letter or digit: it names a folder"
        parser.problem(("name",), rule, name, _name_fix(raw, name, default_name))
    if not isinstance(storage, str) or not storage.strip():
        parser.problem(("storage",), "must be a folder, or an address in a bucket", storage)
    elif is_address(storage):
        try:
            parse_address(storage)
        except ValueError as error:
            parser.problem(("storage",), f"must {error}", storage)
    elif "storage" in raw:
        try:
            check_home(storage)
        except NotAllowedError as error:
            parser.problem(("storage",), error.rule, storage)
    if problems:
        return None
    sections = {
        section: {each: fields[f"{section}.{each}"] for each in section_rules(section)}
        for section, fields in expressions.items()
    }
    written = frozenset(
        f"{section}.{each}"
        for section in SAMPLED
        for each in (raw[section] if isinstance(raw.get(section), Mapping) else ())
    )
    spec = SweepSpec(
        name=name, **sections, search=search, scheduler=scheduler, resources=resources, storage=storage, written=written
    )
    rules.crossing(spec, parser.problem)
    rules.fitted_once(spec, parser.problem)
    if problems or not search.exhaustive:
        return spec
    trials = len(spec.combinations)
    if "trials" in search_written:
        trials = min(trials, search.trials)
    return replace(spec, search=search.model_copy(update={"trials": trials}))


def _name_fix(raw: Mapping[str, Any], name: Any, default_name: str) -> str:
    if "name" not in raw:
        return "The file's name is the sweep's: give it another with name: or --name"
    if not isinstance(name, str):
        return 'Write it in quotes, such as name: "20250131"'
    plain = plain_name(name)
    return f"For example {plain}" if plain else ""


def plain_name(text: str) -> str:
    """A name that a sweep may have, nearest to `text`; empty where nothing of it is left."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode())
    return plain.lstrip("-_.")[:64].rstrip("-")


def _flat(form: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in form.items():
        if isinstance(value, Mapping) and key in TOP_LEVEL:
            flat.update({f"{key}.{name}": inner for name, inner in value.items()})
        else:
            flat[key] = value
    return flat
