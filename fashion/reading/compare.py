"""Runs, or trials of one run, side by side: what their specs differ in, what they cost, and how their predictions
differ on the same validation images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fashion.errors import Problem, UserError
from fashion.reading.cost import Cost
from fashion.reading.predicted import Predicted, head_labels
from fashion.record.ranking import Ranked
from fashion.record.run import Run
from fashion.record.trial import TRAINED_ON_VAL, trained_on_val
from fashion.statistics.paired import MetricDifference, metric_differences
from fashion.statistics.results import LEVEL

# Of a spec, what names a sweep or tells where it is kept.
NAMES = ("name", "storage", "data.root")
LACKING = "-"


@dataclass(frozen=True, eq=False)
class Side:
    """One of the things that are compared: a trial of a run, by default its winner. predictions: None where they can't
    be read, and `unread` says why. cost: the run's, or the trial's."""

    label: str
    run: Run
    chosen: Ranked
    cost: Cost
    predictions: Predicted | None
    unread: str = ""


@dataclass(frozen=True)
class Pairing:
    """A side against the first one. unpaired: why their images can't be paired; then there are no differences. note:
    what to know although they are paired."""

    label: str
    differences: tuple[MetricDifference, ...]
    unpaired: str = ""
    note: str = ""


@dataclass(frozen=True)
class FieldDifference:
    """A dotted field whose values are not the same on all sides, in their order; None where a side lacks it."""

    field: str
    values: tuple[Any, ...]


def pairings(sides: Sequence[Side]) -> list[Pairing]:
    """Every side but the first, paired with the first. The intervals of several are wider (Bonferroni), so that all of
    them together hold with 95 %."""
    level = 1 - (1 - LEVEL) / max(len(sides) - 1, 1)
    return [_pairing(sides[0], side, level) for side in sides[1:]]


def _pairing(first: Side, other: Side, level: float) -> Pairing:
    def unpaired(why: str) -> Pairing:
        return Pairing(other.label, (), why)

    for side in (first, other):
        if trained_on_val(side.chosen.config):
            return unpaired(f"{side.label} has no validation score: {TRAINED_ON_VAL}")
    for side in (first, other):
        if side.predictions is None:
            return unpaired(f"the predictions of {side.label} can't be read: {side.unread}")
        if side.predictions.labels_missing:
            return unpaired(f"the validation labels of {side.label} are not known: {side.predictions.labels_missing}")
    one, two = first.predictions, other.predictions
    assert one is not None
    assert two is not None
    classes = [[(head.name, head.classes) for head in each.attributes] for each in (one, two)]
    if classes[0] != classes[1]:
        return unpaired("they predict other attributes or classes")
    if set(one.images) != set(two.images) or len(one.images) != len(two.images):
        both = len(set(one.images) & set(two.images))
        counts = f"{len(one.images)} and {len(two.images)} validation images, {both} of them in both"
        return unpaired(f"they were validated on other images ({counts})")
    order = _order(two.images, one.images)
    if not all(
        a.labels is not None and b.labels is not None and np.array_equal(a.labels, b.labels[order])
        for a, b in zip(one.attributes, two.attributes, strict=True)
    ):
        return unpaired("the labels of the same validation images are not the same")
    heads = [head_labels(head) for head in one.attributes]
    if not any(head.known.any() for head in heads):
        return unpaired("no label of the validation images is known")
    fingerprints = {side.run.manifest["data_fingerprint"] for side in (first, other)}
    note = "" if len(fingerprints) == 1 else "The data sets differ, though not in the validation images and labels."
    models = [head.probabilities for head in one.attributes], [head.probabilities[order] for head in two.attributes]
    return Pairing(other.label, metric_differences(heads, *models, level), note=note)


def _order(images: Sequence[str], wanted: Sequence[str]) -> NDArray[np.int64]:
    places = {image: place for place, image in enumerate(images)}
    return np.array([places[image] for image in wanted], np.int64)


def spec_differences(runs: Sequence[Run]) -> list[FieldDifference]:
    """In which fields the runs' recorded specs differ, their names and locations aside."""
    found = field_differences([run.manifest["spec"] for run in runs])
    return [each for each in found if each.field not in NAMES]


def config_differences(sides: Sequence[Side]) -> list[FieldDifference]:
    """In which fields the compared trials' configurations differ."""
    found = field_differences([side.chosen.config for side in sides])
    return [each for each in found if each.field not in NAMES]


def field_differences(recorded: Sequence[Mapping[str, Any]]) -> list[FieldDifference]:
    """In which dotted fields these recorded specs, or configurations, differ. A field that an older version did not
    record counts with what it meant then."""
    flat = [_flat(each) for each in recorded]
    names = dict.fromkeys(name for fields in flat for name in fields)
    rows = [FieldDifference(name, tuple(_value(fields, name) for fields in flat)) for name in names]
    return [row for row in rows if any(value != row.values[0] for value in row.values[1:])]


def _flat(recorded: Mapping[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for section, value in recorded.items():
        if isinstance(value, Mapping):
            fields |= {f"{section}.{field}": inner for field, inner in value.items()}
        else:
            fields[section] = value
    return fields


def _value(fields: Mapping[str, Any], name: str) -> Any:
    if name in fields:
        return fields[name]
    section, _, field = name.partition(".")
    if section not in ("data", "model", "train"):
        return None
    from fashion.config.trial import value_lacking  # loads pydantic, which `show` does without

    try:
        return value_lacking(section, field)  # type: ignore[arg-type]
    except KeyError:
        return None


def value_text(value: Any) -> str:
    """A value of a spec or a configuration as YAML has it: `loguniform: [0.001, 1]`."""
    if value is None:
        return LACKING
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {inner if isinstance(inner, str) else json.dumps(inner)}"
                         for name, inner in value.items())  # fmt: skip
    return f"{value:.6g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)


def trial_numbers(text: str, place: str) -> list[int]:
    """The trials of `3,7`, at least two. Raises UserError."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() for part in parts) or len(set(parts)) < 2:
        raise UserError(Problem(place, "must be the numbers of two or more trials", repr(text), "As in: 3,7"))
    return [int(part) for part in dict.fromkeys(parts)]


def distinct_labels(sides: Sequence[Side]) -> list[Side]:
    """The sides with labels that are told apart: a run's name or, where two share it, its location."""
    names = [side.label for side in sides]
    return [replace(side, label=side.run.location) if names.count(side.label) > 1 else side for side in sides]
