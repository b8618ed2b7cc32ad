"""Runs or trials side by side, as a page and as JSON values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fashion.display import rows as words
from fashion.errors import printable
from fashion.reading.compare import FieldDifference, Pairing, Side, value_text
from fashion.reading.cost import Cost
from fashion.record.trial import metrics_to_json
from fashion.statistics.paired import MetricDifference

LOSSES = ("val_loss",)  # metrics that are no shares
WIDEST = 40  # columns of a value


def comparison_json(
    sides: Sequence[Side],
    pairs: Sequence[Pairing],
    specs: Sequence[FieldDifference],
    configs: Sequence[FieldDifference],
) -> dict[str, Any]:
    """The comparison as JSON values: `sides` in the order in which they were named, `paired` of every one but the first
    with the first (differences: the other's minus the first's), and the fields that differ."""
    return {
        "sides": [
            {
                "label": side.label, "run": side.run.location, "trial": side.chosen.trial, "epoch": side.chosen.epoch,
                "metrics": metrics_to_json(side.chosen.metrics),
                "cost": {**vars(side.cost), "images_per_second": _finite(side.cost.images_per_second)},
            }
            for side in sides
        ],
        "paired": [
            {
                "label": pair.label, "unpaired": pair.unpaired or None, "note": pair.note or None,
                "differences": [_difference_json(each) for each in pair.differences],
            }
            for pair in pairs
        ],
        "spec": [{"field": each.field, "values": list(each.values)} for each in specs],
        "config": [{"field": each.field, "values": list(each.values)} for each in configs],
    }  # fmt: skip


def _difference_json(each: MetricDifference) -> dict[str, Any]:
    found = each.difference
    return {
        "metric": each.metric, "first": each.first, "second": each.second, "difference": found.value,
        "low": found.low, "high": found.high, "level": each.level, "within_noise": found.within_noise,
    }  # fmt: skip


def print_comparison(
    sides: Sequence[Side],
    pairs: Sequence[Pairing],
    specs: Sequence[FieldDifference] | None,
    configs: Sequence[FieldDifference],
    out: Console,
) -> None:
    """Print what each side reached and cost, the paired differences, and the fields that differ. specs: None where all
    sides are of one run."""
    out.print(_table_of_sides(sides))
    images = len(sides[0].predictions.images) if sides[0].predictions is not None else 0
    for pair in pairs:
        out.print()
        if pair.unpaired:
            text = f"{pair.label} and {sides[0].label} can't be compared image by image: {pair.unpaired}"
            out.print(printable(text), markup=False)
            continue
        out.print(printable(_verdict(sides[0].label, pair)), markup=False, style="bold")
        if pair.note:
            out.print(pair.note, markup=False)
        out.print(_table_of_differences(sides[0].label, pair))
        level = f"{100 * pair.differences[0].level:.3g}" if pair.differences else "95"
        out.print(f"{level} % intervals by resampling the {images} validation images, the same for both", style="dim")
    if specs is not None and any(not pair.unpaired for pair in pairs):
        numbers = ", ".join(str(len(side.run.trials)) for side in sides)
        out.print(
            f"each is the best of its run's trials ({numbers}) on these same images, so in part by luck", style="dim"
        )
    if specs is not None:
        _print_fields("the specs", sides, specs, out)
    # A value that a spec fixes is in its trials' configurations, too.
    others = [each for each in configs if each not in (specs or ())]
    _print_fields("the compared trials' configurations", sides, others, out, partly=len(others) < len(configs))


def _verdict(first: str, pair: Pairing) -> str:
    """What val_loss says, without calling better what is within the noise."""
    loss = next((each for each in pair.differences if each.metric == "val_loss"), None)
    if loss is None:
        return f"{pair.label} and {first}: no common metric"
    if loss.difference.within_noise:
        return f"{pair.label} and {first} can't be told apart by val_loss"
    better, worse = (pair.label, first) if loss.difference.value < 0 else (first, pair.label)
    ends = sorted((abs(loss.difference.low), abs(loss.difference.high)))
    return f"{better} is better than {worse}: its val_loss is {ends[0]:.4f} to {ends[1]:.4f} lower"


def _table_of_sides(sides: Sequence[Side]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("", no_wrap=True)
    for side in sides:
        table.add_column(Text(printable(side.label), overflow="fold"), justify="right", overflow="fold")
    best = [f"{side.chosen.trial}, epoch {side.chosen.epoch}" for side in sides]
    table.add_row("trial", *best)
    table.add_row("val_loss", *(words.number(side.chosen.val_loss) for side in sides))
    for name in ("val_accuracy", "val_balanced_accuracy", "val_exact_match"):
        if any(name in side.chosen.metrics for side in sides):
            table.add_row(f"{name} %", *(words.percent(side.chosen.metrics.get(name, math.nan)) for side in sides))
    costs = [side.cost for side in sides]
    table.add_row("parameters", *("-" if each.parameters is None else f"{each.parameters:,}" for each in costs))
    if any(each.trials > 1 for each in costs):
        table.add_row("trials", *(_trials(each) for each in costs))
    table.add_row("epochs", *(str(each.epochs) for each in costs))
    table.add_row("training time", *(words.duration(each.seconds) for each in costs))
    speeds = (f"{each.images_per_second:.0f}" if math.isfinite(each.images_per_second) else "-" for each in costs)
    table.add_row("images/s", *speeds)
    return table


def _trials(cost: Cost) -> str:
    return str(cost.trials) if cost.final == cost.trials else f"{cost.final} of {cost.trials} final"


def _table_of_differences(first: str, pair: Pairing) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("", overflow="fold")
    for label in (first, pair.label):
        table.add_column(Text(printable(label), overflow="fold"), justify="right", overflow="fold")
    table.add_column("difference", justify="right", no_wrap=True)
    table.add_column("interval", no_wrap=True)
    for each in pair.differences:
        table.add_row(Text(printable(each.metric)), *_cells(each))
    return table


def _cells(each: MetricDifference) -> list[str]:
    found = each.difference
    if each.metric in LOSSES:
        ends = f"{found.low:+.4f} to {found.high:+.4f}"
        return [f"{each.first:.4f}", f"{each.second:.4f}", f"{found.value:+.4f}", ends]
    low, high, difference = (100 * value for value in (found.low, found.high, found.value))
    shares = [f"{100 * each.first:.2f} %", f"{100 * each.second:.2f} %"]
    return [*shares, f"{difference + 0.0:+.2f}", f"{low + 0.0:+.2f} to {high + 0.0:+.2f}"]


def _print_fields(
    what: str, sides: Sequence[Side], rows: Sequence[FieldDifference], out: Console, partly: bool = False
) -> None:
    """partly: other rows have been printed already."""
    out.print()
    if not rows:
        out.print(f"{what} do not differ{' otherwise' if partly else ''}", style="dim")
        return
    out.print(f"{what}{' also' if partly else ''} differ in", style="dim")
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("field", no_wrap=True)
    for side in sides:
        table.add_column(Text(printable(side.label), overflow="fold"), overflow="fold", max_width=WIDEST)
    for row in rows:
        table.add_row(Text(printable(row.field)), *(Text(printable(value_text(each))) for each in row.values))
    out.print(table)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
