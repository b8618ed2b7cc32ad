"""A run's trials as a table of values by column name: what `show --where`, `--sort` and `--csv` look at."""

from __future__ import annotations

import csv
import difflib
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from fashion.errors import Problem, UserError, printable
from fashion.record.run import Run
from fashion.record.trial import Trial
from fashion.schedulers.metrics import METRICS
from fashion.spec.synonyms import meant

Value = float | int | str | bool | None
Row = Mapping[str, Value]
SECTIONS = ("model", "data", "train")
NEAR = 3  # names that an error suggests


class Kind(Enum):
    """What a column's values are, null aside, in words."""

    NUMBER = "numbers"
    TEXT = "text"
    BOOLEAN = "true or false"
    EMPTY = "nothing yet"


@dataclass(frozen=True)
class TrialColumns:
    """rows: trial number -> column -> value; every row has every column, null where the trial has no such value, or one
    that is not finite. kinds: column -> what it holds, in the columns' order. sampled: the columns of those fields in
    which trials may differ.

    The columns: trial, status, reason, attempt, epochs_done of epochs, seconds (wall time of all epochs), best_epoch
    and that epoch's metrics, origin, node (of the last attempt), and every field of the configuration.
    """

    rows: Mapping[int, Row]
    kinds: Mapping[str, Kind]
    sampled: tuple[str, ...]

    def resolve(self, word: str, place: str) -> str:
        """The column that is meant by its full name or by its last one. Raises UserError, with near names, where there
        is none or there are several."""
        if word in self.kinds:
            return word
        found = [name for name in self.kinds if last_name(name) == word]
        if len(found) == 1:
            return found[0]
        if found:
            fix = f"Write {' or '.join(found)}"
            raise UserError(Problem(place, "several columns have this last name", repr(word), fix))
        other = meant(word)
        names = [other] if other in self.kinds else self._near(word)
        fix = f"Did you mean {' or '.join(names)}?" if names else "`show --csv` prints the columns"
        raise UserError(Problem(place, "there is no such column", repr(word), fix))

    def _near(self, word: str) -> list[str]:
        names = {name: name for name in self.kinds} | {last_name(name): name for name in reversed(list(self.kinds))}
        close = difflib.get_close_matches(word, names, NEAR, 0.6)
        return list(dict.fromkeys(names[each] for each in close))

    def ordered(self, numbers: Iterable[int], key: str, place: str) -> list[int]:
        """The trials sorted by a column: a metric from the best value down, anything else from the least up; with `-`
        before the name the other way round. Trials without a value come last, and equal ones stay in order."""
        name = self.resolve(key.removeprefix("-"), place)
        downwards = best_is_most(name) != key.startswith("-")
        numbers = list(numbers)
        valued = [number for number in numbers if self.rows[number][name] is not None]
        valued.sort(key=lambda number: self.rows[number][name], reverse=downwards)  # type: ignore[arg-type, return-value]
        return valued + [number for number in numbers if self.rows[number][name] is None]

    def values(self, name: str) -> list[str]:
        """The texts that a column holds, each once; none where it holds no text."""
        if self.kinds[name] is not Kind.TEXT:
            return []
        return sorted({str(row[name]) for row in self.rows.values() if row[name] is not None})

    def to_csv(self, numbers: Sequence[int]) -> str:
        """One line for each of the trials below a line of names: everything but what all configurations share. Null is
        an empty field; unprintable characters are escaped."""
        shown = [name for name in self.kinds if name in self.sampled or not _in_configuration(name)]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([printable(name) for name in shown])
        writer.writerows([[_cell(self.rows[number][name]) for name in shown] for number in numbers])
        return text.getvalue()


def trial_columns(run: Run) -> TrialColumns:
    """Of every recorded trial, by number."""
    raw = {number: _values(run.trials[number]) for number in sorted(run.trials)}
    fields = [
        f"{section}.{field}"
        for section in SECTIONS
        for field in dict.fromkeys(
            [
                *run.manifest["spec"].get(section, {}),
                *(name for trial in run.trials.values() for name in trial.config.get(section, {})),
            ]
        )
    ]
    metrics = dict.fromkeys([*METRICS, *(name for row in raw.values() for name in row["metrics"])])
    names = dict.fromkeys([*_FIRST, *metrics, *_LAST, *fields, "seed"])
    table: dict[int, dict[str, Any]] = {
        number: {name: row.get(name, row["metrics"].get(name)) for name in names} for number, row in raw.items()
    }
    kinds = {name: _kind([row[name] for row in table.values()]) for name in names}
    rows = {number: {name: _typed(value, kinds[name]) for name, value in row.items()} for number, row in table.items()}
    return TrialColumns(rows, kinds, tuple(varying(run.manifest)))


def varying(manifest: Mapping[str, Any]) -> list[str]:
    """The dotted fields in which a run's trials may differ: those that its recorded spec samples, and those that were
    edited when the run was extended."""
    edited = {field for extension in manifest.get("extensions", []) for field in extension["edited"]}
    return [
        f"{section}.{field}"
        for section in SECTIONS
        for field, value in manifest["spec"].get(section, {}).items()
        if isinstance(value, Mapping) or f"{section}.{field}" in edited
    ]


def column_names(manifest: Mapping[str, Any]) -> list[str]:
    """The columns that are known from the manifest alone, for completion in the shell."""
    attributes = [f"val_accuracy/{each['name']}" for each in manifest["attributes"]]
    fields = [f"{section}.{field}" for section in SECTIONS for field in manifest["spec"].get(section, {})]
    return [*_FIRST, *METRICS, *attributes, *_LAST, *fields]


def last_name(name: str) -> str:
    """`lr` of `train.lr`; of a metric of one attribute the whole name."""
    return name.rpartition(".")[2] if _in_configuration(name) else name


def best_is_most(name: str) -> bool:
    """Whether more is better: true of metrics such as accuracies only."""
    whole = name.partition("/")[0]
    return whole in METRICS and METRICS[whole].mode == "max"


_FIRST = ("trial", "status", "epochs_done", "epochs", "best_epoch")
_LAST = ("seconds", "attempt", "node", "origin", "reason")


def _in_configuration(name: str) -> bool:
    return (name.partition(".")[0] in SECTIONS and "." in name) or name == "seed"


def _values(trial: Trial) -> dict[str, Any]:
    best, last = trial.best(), trial.reports[-1] if trial.reports else None
    config = trial.config
    fields = {f"{section}.{field}": value for section in SECTIONS for field, value in config.get(section, {}).items()}
    return {
        "trial": trial.number,
        "status": trial.status,
        "epochs_done": last.epoch if last else 0,
        "epochs": last.epochs if last else config.get("train", {}).get("epochs"),
        "best_epoch": best.epoch if best else None,
        "metrics": best.metrics if best else {},
        "seconds": trial.left_out_seconds + math.fsum(each.seconds for each in trial.reports),
        "attempt": trial.attempt,
        "node": trial.slots[-1].node if trial.slots else None,
        "origin": f"trial {trial.origin[1]} of {trial.origin[0]}" if trial.origin else None,
        "reason": trial.reason or None,
        **fields,
        "seed": config.get("seed"),
    }


def _kind(values: Iterable[Any]) -> Kind:
    types = {type(value) for value in values if value is not None}
    if not types:
        return Kind.EMPTY
    if types == {bool}:
        return Kind.BOOLEAN
    return Kind.NUMBER if types <= {int, float} else Kind.TEXT


def _typed(value: Any, kind: Kind) -> Value:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if kind is Kind.TEXT and not isinstance(value, str):
        return json.dumps(value)
    found: Value = value
    return found


def _cell(value: Value) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else printable(str(value))
