"""What the page's scripts draw: trials, axes and curves, as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from fashion.display.rows import short
from fashion.page.gather import METRIC, PageRun, spread_of

LARGEST_RATIO = 20  # between the ends of an axis, above which it is logarithmic
RUN = "run"  # the axis that tells runs apart on a page of several


def payload(runs: Sequence[PageRun], watch: float = 0.0) -> dict[str, Any]:
    """For state.js. The trials of several runs stand one after another, with an axis of their runs first.

    watch: seconds after which a page that follows a sweep loads itself again; 0 for one that does not.
    """
    several = len(runs) > 1
    names = distinct_names(runs)
    trials: list[dict[str, Any]] = []
    columns: dict[str, list[Any]] = {RUN: []} if several else {}
    fields = list(dict.fromkeys(name for run in runs for name in run.fields))
    labels = {name: label for run in reversed(runs) for name, label in run.labels.items()}
    columns.update({name: [] for name in fields})
    losses: list[float | None] = []
    best = min((run.winner.val_loss for run in runs if run.winner), default=math.nan)
    for run, name in zip(runs, names, strict=True):
        for row in run.rows:
            won = run.winner is not None and run.winner.trial == row.number and run.winner.val_loss == best
            interval = run.interval(row.number, "val_loss")
            accuracy = _finite(row.accuracy)
            title = f"{name}/{row.number}" if several else str(row.number)
            values = {field: row.values.get(field) for field in fields}
            seldom = {"reason": row.reason, "tied": row.number in run.tied, "winner": won}
            trials.append(
                {
                    "name": title,
                    "order": len(trials),
                    "loss": _rounded(row.best, 6),
                    "half": None if interval is None else _rounded((interval.high - interval.low) / 2, 3),
                    "accuracy": None if accuracy is None else round(accuracy, 5),
                    "epoch": row.epoch,
                    "epochs": row.epochs,
                    "status": row.status,
                    "words": " ".join([title, row.status, *(short(each) for each in values.values())]).lower(),
                    "curve": _curve(run, row.number),
                    **{key: value for key, value in seldom.items() if value},
                }
            )
            if several:
                columns[RUN].append(name)
            for field, value in values.items():
                columns[field].append(value)
            losses.append(_finite(row.best))
    axes = [
        _axis(labels.get(name, name), values, next(filter(None, (spread_of(run.manifest, name) for run in runs)), ""))
        for name, values in columns.items()
    ]
    axes = [axis for axis in axes if axis is not None]
    metric = _axis(METRIC, losses) or _only(losses)
    rungs = runs[0].rungs if len({(run.rungs, run.fraction) for run in runs}) == 1 else ()
    lengths = {row.epochs for run in runs for row in run.rows}
    shares = bool(rungs) and runs[0].fraction and len(lengths) > 1
    if runs[0].fraction:  # of trials of one length a share is an epoch
        length = max(lengths, default=1)
        rungs = tuple(100 * each if shares else math.ceil(each * length - 1e-9) for each in rungs)
    return {
        "metric": METRIC,
        "axes": [*axes, {**metric, **_clipped(losses)}],
        "trials": trials,
        "rungs": list(rungs),
        "fraction": shares,
        "watch": watch,
    }


def distinct_names(runs: Sequence[PageRun]) -> list[str]:
    """The runs' names, with where they are kept where two share one."""
    names = [run.name for run in runs]
    return [run.name if names.count(run.name) == 1 else run.opened.location for run in runs]


def to_script(values: dict[str, Any]) -> str:
    """JSON that can stand within <script>: a class or a reason may hold `</script`, or `<!--`."""
    text = json.dumps(values, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    for sign, code in (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026"), ("\u2028", "\\u2028"),
                       ("\u2029", "\\u2029")):  # fmt: skip
        text = text.replace(sign, code)
    return text.encode("utf-8", "replace").decode()  # lone surrogates, which no file can hold


def _curve(run: PageRun, number: int) -> list[float | None]:
    """The metric by epoch, from 1; None where an epoch has no finite one."""
    reports = run.opened.record.trials[number].reports
    found: list[float | None] = [None] * max((each.epoch for each in reports), default=0)
    for report in reports:
        value = report.metrics.get(METRIC, math.nan)
        found[report.epoch - 1] = float(f"{value:.4g}") if math.isfinite(value) else None
    return found


def _axis(name: str, values: Sequence[Any], spread: str = "uniform") -> dict[str, Any] | None:
    """An axis of one field; None for one without two values. Without a `spread` the values decide on its scale."""
    present = [value for value in values if value is not None]
    if len({str(value) for value in present}) < 2 and (not present or None not in values):
        return None
    numeric = all(isinstance(each, int | float) and not isinstance(each, bool) and math.isfinite(each)
                  for each in present)  # fmt: skip
    if not numeric:
        labels = sorted({short(value) if isinstance(value, bool) else str(value) for value in present})
        place = {label: index for index, label in enumerate(labels)}
        spots = [None if v is None else place[short(v) if isinstance(v, bool) else str(v)] for v in values]
        return {"name": name, "kind": "category", "values": spots, "labels": labels, "low": 0, "high": 1, "open": False}
    low, high = float(min(present)), float(max(present))
    wide = spread == "loguniform" or (not spread and low > 0 and high / low > LARGEST_RATIO)
    kind = "log" if wide and low > 0 else "linear"
    rounded = [None if value is None else float(f"{value:.5g}") for value in values]
    low, high = min(low, *(v for v in rounded if v is not None)), max(high, *(v for v in rounded if v is not None))
    return {"name": name, "kind": kind, "values": rounded, "labels": [], "low": low, "high": high, "open": False}


def _only(losses: Sequence[float | None]) -> dict[str, Any]:
    """The metric's axis where there are no two losses."""
    at = next((loss for loss in losses if loss is not None), 0.0)
    return {"name": METRIC, "kind": "linear", "values": losses, "labels": [], "low": at, "high": at, "open": False}


def _clipped(losses: Sequence[float | None]) -> dict[str, Any]:
    """The ends of the metric's axis. A few losses far above the others must not flatten them: they lie at its end."""
    present = sorted(loss for loss in losses if loss is not None)
    if len(present) < 8:
        return {}
    low, third, high = present[0], present[3 * len(present) // 4], present[-1]
    end = third + 3 * (third - low)
    return {"high": end, "open": True} if low < end < high else {}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _rounded(value: float, digits: int) -> float | None:
    return round(value, digits) if math.isfinite(value) else None
