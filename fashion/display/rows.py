"""The state of a run as plain rows and words, from which the live display, `ls`, `show` and `best` print."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fashion.errors import printable
from fashion.reading.trial_columns import varying as varying
from fashion.record.trial import Trial

FINAL = ("completed", "stopped", "failed")
# The sampled fields that decide most, in this order: where there is no room for all, the others yield first.
IMPORTANT = (
    "model.backbone", "train.lr", "train.optimizer", "train.mode", "model.weights", "train.batch_size", "train.epochs",
    "data.crop", "data.resize", "train.weight_decay", "model.dropout", "train.schedule",
)  # fmt: skip
ENOUGH = 10  # trials after which a field that has had one value only counts as one that decides nothing


@dataclass(frozen=True)
class Row:
    """One trial at a glance. `best` and `last` are val_loss at the best and at the last epoch, NaN before the first
    report; `metrics` are those of the best epoch, none before. `seconds` is the mean wall time of an epoch. `curve`
    holds val_loss by epoch; empty where the record was read without all its reports. `origin` names the trial of
    another run from which this one was taken; empty for one that was trained here."""

    number: int
    status: str
    epoch: int
    epochs: int
    best: float
    best_epoch: int
    metrics: Mapping[str, float]
    last: float
    seconds: float
    values: dict[str, Any]
    reason: str
    curve: Sequence[float] = ()
    origin: str = ""

    @property
    def accuracy(self) -> float:
        """val_accuracy at the best epoch; NaN before the first report."""
        return self.metrics.get("val_accuracy", math.nan)

    @property
    def order(self) -> tuple[float, int]:
        """Sorts by best val_loss; trials without one come last."""
        return (self.best if math.isfinite(self.best) else math.inf, self.number)


def row(trial: Trial, fields: Iterable[str] = (), active: Collection[int] | None = None) -> Row:
    """A trial's row; `fields` are the dotted configuration fields to show. `active` holds the trials that have a worker
    now: if it is given, a trial that is neither final nor in it is "waiting"."""
    status: str = trial.status
    if active is not None and status not in FINAL:
        status = "running" if trial.number in active else "waiting"
    values = {name: field_value(trial.config, name) for name in fields}
    best = trial.best()
    last = trial.reports[-1] if trial.reports else None
    epochs = last.epochs if last else trial.config.get("train", {}).get("epochs", 0)
    total = trial.left_out_seconds + sum(report.seconds for report in trial.reports)
    seconds = total / (trial.left_out + len(trial.reports)) if trial.reports else math.nan
    return Row(
        trial.number,
        status,
        last.epoch if last else 0,
        epochs,
        best.metrics["val_loss"] if best else math.nan,
        best.epoch if best else 0,
        best.metrics if best else {},
        last.metrics.get("val_loss", math.nan) if last else math.nan,
        seconds,
        values,
        trial.reason,
        () if trial.left_out else [report.metrics.get("val_loss", math.nan) for report in trial.reports],
        f"trial {trial.origin[1]} of {trial.origin[0]}" if trial.origin else "",
    )


def field_value(config: Mapping[str, Any], name: str) -> Any:
    """The value of a dotted field of a recorded configuration; None if it has no such field."""
    value: Any = config
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def by_importance(fields: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """The fields, the most important first: those of IMPORTANT, the others in their order, and last of all those in
    which no two of the trials differ."""

    def same(name: str) -> bool:
        first = rows[0].values.get(name) if rows else None
        return len(rows) >= ENOUGH and all(each.values.get(name) == first for each in rows)

    rank = {name: place for place, name in enumerate(IMPORTANT)}
    return sorted(fields, key=lambda name: (same(name), rank.get(name, len(rank))))


def short_names(fields: Sequence[str]) -> dict[str, str]:
    """Dotted field -> the name to show: its last part, unless two fields share it."""
    ends = Counter(name.rpartition(".")[2] for name in fields)
    return {name: name.rpartition(".")[2] if ends[name.rpartition(".")[2]] == 1 else name for name in fields}


def choose(rows: Iterable[Row], room: int) -> tuple[list[Row], list[Row]]:
    """The rows that a screen with space for `room` of them shows, and the rest. First come the running trials by
    number, at most half where space is short, then the others from the best down."""
    running = sorted((each for each in rows if each.status == "running"), key=lambda each: each.number)
    others = sorted((each for each in rows if each.status != "running"), key=lambda each: each.order)
    if len(running) + len(others) > room:
        # Of many running trials the leaders matter; of the others the best always keeps a line.
        keep = max(room - len(others), (room + 1) // 2, 1)
        leaders = sorted(sorted(running, key=lambda each: each.order)[:keep], key=lambda each: each.number)
        running, left = leaders, [each for each in running if each not in leaders]
    else:
        left = []
    shown = max(room - len(running), 0)
    return running + others[:shown], left + others[shown:]


def counts(rows: Iterable[Row], total: int) -> dict[str, int]:
    """How many trials have each status, in the order of a trial's life; `waiting` includes those not yet started."""
    found = Counter(each.status for each in rows)
    found["waiting"] += max(total - sum(found.values()), 0)
    order = ("running", "waiting", "interrupted", "completed", "stopped", "failed")
    return {status: found[status] for status in order if found[status]}


def counts_text(found: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {status}" for status, number in found.items()) or "none"


def listed(names: Sequence[str], room: int) -> str:
    """Names side by side within `room` columns; those that don't fit are counted."""
    for kept in range(len(names), -1, -1):
        more = f"{len(names) - kept} more" if kept < len(names) else ""
        text = ", ".join([*names[:kept], *([more] if more else [])])
        if len(text) <= room:
            return text
    return text


def leader(rows: Iterable[Row]) -> Row | None:
    """The row with the lowest finite val_loss; among equals the one with the lowest number."""
    finite = [each for each in rows if math.isfinite(each.best)]
    return min(finite, key=lambda each: each.order, default=None)


def seconds_left(rows: Sequence[Row], total: int) -> float | None:
    """A rough forecast of the remaining wall time in seconds; None before the first report or if nothing runs.

    An epoch costs the mean of its trial's epochs so far, or else of all trials'. A trial that has not started costs
    what the finished ones did on average. A running trial stops at the share of its epochs at which the finished ones
    ended on average; one that is further runs to its end.
    """
    timed = [each for each in rows if math.isfinite(each.seconds) and each.epoch]
    running = [each for each in rows if each.status == "running"]
    if not timed or not running:
        return None
    typical = sum(each.seconds * each.epoch for each in timed) / sum(each.epoch for each in timed)
    finished = [each for each in timed if each.status in ("completed", "stopped")]
    share = sum(each.epoch / each.epochs for each in finished) / len(finished) if finished else 1.0

    def left(each: Row) -> float:
        until = share * each.epochs if each.epoch < share * each.epochs else each.epochs
        cost = each.seconds if math.isfinite(each.seconds) else typical
        return max(until - each.epoch, 0.0) * cost

    begun = [left(each) for each in rows if each.status not in FINAL]
    mean_cost = sum(each.seconds * each.epoch for each in finished or timed) / len(finished or timed)
    if not finished:
        mean_cost = sum(each.epochs * each.seconds for each in timed) / len(timed)
    fresh = max(total - len(rows), 0)
    return max((sum(begun) + fresh * mean_cost) / len(running), max(left(each) for each in running))


def number(value: float) -> str:
    """A loss in a column: four decimals where they fit, "-" for a value that is not finite."""
    if not math.isfinite(value):
        return "-"
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:.3g}"


def percent(value: float) -> str:
    """A share in a column as a percentage, "-" for a value that is not finite."""
    return f"{100 * value:.2f}" if math.isfinite(value) else "-"


def short(value: Any) -> str:
    """A hyper-parameter in a column: floats with three digits, null as "-", of a long path the end."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}"
    text = printable(str(value))
    return text if len(text) <= 20 else f"~{text[-19:]}"


def exact(value: Any) -> str:
    """A hyper-parameter as a spec would have it: six digits of a float."""
    return "null" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def duration(seconds: float) -> str:
    """Seconds in words, with one unit or two: 48 s, 12 min, 3 h 05 min, 2 d 4 h."""
    whole = int(max(seconds, 0))
    if whole < 100:
        return f"{whole} s"
    minutes, hours = round(whole / 60), round(whole / 3600)
    if minutes < 100:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{hours // 24} d {hours % 24} h"


def ago(moment: float) -> str:
    """How long ago `moment` (seconds since the epoch) is."""
    return f"{duration(time.time() - moment)} ago"
