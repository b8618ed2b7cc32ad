"""The rules that a manifest, a journal's lines and a report must meet before anything else reads them.

The files may be damaged, edited by hand or somebody else's: numbers that name files are whole numbers, never paths.
Pure Python, so that `ls`, `show` and `best` start at once.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, get_args

from fashion.errors import CONTROLS
from fashion.files import Rule, whole
from fashion.schedulers.base import LEAST_REDUCTION, MOST_BRACKETS, MOST_REDUCTION, Compare, Decision
from fashion.schedulers.metrics import METRICS
from fashion.schedulers.registry import SCHEDULERS

if TYPE_CHECKING:
    from fashion.data.lists import Attribute  # loads pydantic, and `best` must start at once

MULTI_LABEL = {"multi_label": "true"}  # metadata of a column of a multi-label attribute's probabilities
LARGEST = 2.0**1000  # of a metric: what is computed from it stays finite
NUMBERS = (int, float)


def number(value: Any) -> bool:
    """A number that is not negative and not absurdly large."""
    return isinstance(value, NUMBERS) and not isinstance(value, bool) and 0 <= value < 2**60


def word(value: Any) -> bool:
    return isinstance(value, str)


def title(value: Any) -> bool:
    """Text without control characters, which a terminal would obey."""
    return isinstance(value, str) and not CONTROLS.search(value)


def metric(value: Any) -> bool:
    """A number, or one of the strings for the numbers that JSON lacks."""
    if type(value) is float:  # nearly always, and a large record has a hundred thousand of them
        return -LARGEST < value < LARGEST
    if isinstance(value, str):
        return value in ("nan", "inf", "-inf")
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < LARGEST


def moment(value: Any) -> bool:
    """A time in ISO 8601, or an empty string."""
    if not isinstance(value, str):
        return False
    try:
        return not value or math.isfinite(datetime.fromisoformat(value).timestamp())
    except (ValueError, OverflowError, OSError):  # OSError: the system's clock does not reach back to the year 0001
        return False


def one_of(*words: str) -> Rule:
    return lambda value: isinstance(value, str) and value in words


def sections(value: Any) -> bool:
    """A configuration or a spec: those sections that it has are objects."""
    names = ("data", "model", "train", "search", "scheduler", "resources")
    return isinstance(value, Mapping) and all(isinstance(value[name], Mapping) for name in names if name in value)


def configuration(value: Any) -> bool:
    return sections(value) and whole(1)(value.get("train", {}).get("epochs", 1))


REPORT: Mapping[str, Rule] = {
    "trial": whole(0),
    "attempt": whole(0),
    "epoch": whole(1),
    "epochs": whole(1),
    "metrics": lambda value: isinstance(value, Mapping) and all(map(metric, value.values())) and "val_loss" in value,
    "seconds": number,
    "time": moment,
    "setting": word,
}
# An event of the journal. Which of these entries it has depends on its kind.
EVENT: Mapping[str, Rule] = {
    "event": word,
    "trial": whole(0),
    "attempt": whole(0),
    "config": configuration,
    "run": word,
    "of": whole(0),
    "slot": whole(0),
    "node": title,
    "decision": one_of(*get_args(Decision)),
    "report": lambda value: isinstance(value, Mapping),
    "status": one_of("completed", "stopped", "failed"),
    "reason": word,
    "text": word,
    "versions": lambda value: isinstance(value, Mapping) and all(map(title, (*value, *value.values()))),
}
# The settings that a scheduler's decisions depend on.
SCHEDULER: Mapping[str, Rule] = {
    "name": one_of(*SCHEDULERS),
    "metric": one_of(*METRICS),
    "compare": one_of(*get_args(Compare)),
    "grace": lambda value: number(value) and value > 0,
    "reduction": lambda value: number(value) and LEAST_REDUCTION <= value <= MOST_REDUCTION,
    "brackets": lambda value: whole(1)(value) and value <= MOST_BRACKETS,
}


def check(value: Mapping[str, Any], rules: Mapping[str, Rule], needed: Iterable[str] = ()) -> None:
    """Raise ValueError naming the first entry that breaks its rule, KeyError for one that is missing."""
    for name in needed:
        value[name]
    for name, rule in rules.items():
        if name in value and not rule(value[name]):
            raise ValueError(f"{name} can't be {json.dumps(value[name])[:60]}")


def attributes_of(value: Any) -> list[tuple[str, tuple[str, ...]]]:
    """Name and classes of each attribute. Raises ValueError, TypeError or KeyError for anything else."""
    found = [(entry["name"], tuple(entry["classes"])) for entry in value]
    names = [name for name, _ in found]
    if not all(map(title, names)) or len({*names, "image"}) <= len(names):
        raise ValueError("attributes have different names, and none is called image")
    for entry, (name, classes) in zip(value, found, strict=True):
        if not isinstance(entry["classes"], list) or not classes or not all(map(title, classes)):
            raise ValueError(f"attribute {name[:60]!r} needs a list of class names")
    return found


def attribute_entry(attribute: Attribute) -> dict[str, Any]:
    """What a manifest, a model's description and a checkpoint say of an attribute; `attributes_of` and `multi_label_of`
    read it."""
    entry = {"name": attribute.name, "classes": list(attribute.classes)}
    return {**entry, "multi_label": True} if attribute.multi_label else entry


def multi_label_of(value: Any) -> list[bool]:
    """Which attributes are multi-label. Raises ValueError, TypeError or KeyError for anything else."""
    attributes_of(value)
    found = [entry.get("multi_label", False) for entry in value]
    if not all(isinstance(each, bool) for each in found):
        raise ValueError("multi_label is true or false")
    return found


def known_counts(manifest: Mapping[str, Any], split: str) -> list[list[int]]:
    """How many labels of each column of "train" or "val" are known: for each attribute one number, for a multi-label
    one a number for each class. A manifest without them is of data in which all labels are known."""
    rows: list[list[int]] = manifest["label_counts"][split]
    if "known_labels" not in manifest:
        return [[sum(row)] for row in rows]
    known: list[list[int]] = manifest["known_labels"][split]["columns"]
    return known


def fully_labelled(manifest: Mapping[str, Any], split: str) -> int | None:
    """How many images of a split have all their labels; None where that is all of them."""
    if "known_labels" not in manifest:
        return None
    return int(manifest["known_labels"][split]["images"])


def manifest_problem(manifest: Mapping[str, Any]) -> tuple[str, str] | None:
    """(key, what is wrong with it) of the first entry of a manifest that can't be used; None if there is none."""
    for key, rule in (("name", title), ("created", title), ("data_fingerprint", title), ("spec", sections)):
        if not rule(manifest[key]):
            return key, "is not text" if rule is title else "is not a spec"
    for key in ("data_root", "code_version"):
        if not isinstance(manifest.get(key, ""), str):
            return key, "is not text"
    if not isinstance(manifest.get("packages", {}), Mapping):
        return "packages", "is not a mapping of packages to versions"
    spec = manifest["spec"]
    if not whole(1)(spec.get("search", {}).get("trials", 1)):
        return "spec", "has a search without a number of trials"
    try:
        counts = [len(classes) for _, classes in attributes_of(manifest["attributes"])]
        multi = multi_label_of(manifest["attributes"])
    except (KeyError, TypeError, ValueError) as error:
        return "attributes", f"is not a list of names with their classes ({error})"
    for split in ("train", "val") if counts or "known_labels" in manifest else ():
        try:
            rows = manifest["label_counts"][split]
            right = [len(row) for row in rows] == counts and all(whole(0)(each) for row in rows for each in row)
            right = right and all(sum(row) > 0 or each for row, each in zip(rows, multi, strict=True))
        except (KeyError, TypeError):
            right = False
        if not right:
            return "label_counts", f"does not have one number for each class of {split}"
        if ("known_labels" in manifest or any(multi)) and not _known_right(manifest, split, multi):
            return "known_labels", f"does not have the numbers of labels of {split} that are known"
    extensions = manifest.get("extensions", [])
    edited = [entry.get("edited") if isinstance(entry, Mapping) else None for entry in _listed(extensions)]
    if not isinstance(extensions, list) or not all(isinstance(e, list) and all(map(word, e)) for e in edited):
        return "extensions", "does not list what was edited"
    return None


def _known_right(manifest: Mapping[str, Any], split: str, multi: Sequence[bool]) -> bool:
    """Whether `known_counts` and `fully_labelled` agree with the manifest's `label_counts`."""
    try:
        counts, rows = manifest["label_counts"][split], manifest["known_labels"][split]["columns"]
        images = whole(0)(manifest["known_labels"][split]["images"])
        for count, row, each in zip(counts, rows, multi, strict=True):
            most = count if each else [sum(count)]
            if not all(map(whole(0), row)) or not sum(row) or any(a > b for a, b in zip(most, row, strict=True)):
                return False
    except (KeyError, TypeError, ValueError):
        return False
    return images


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
