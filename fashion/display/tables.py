"""A run drawn for a terminal: tables and lines of the live display, `show` and `ls`. Rich only, no state."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fashion.display import rows as words
from fashion.display.rows import Row
from fashion.errors import printable
from fashion.schedulers.base import RungState
from fashion.schedulers.metrics import METRICS

STYLES = {
    "running": "cyan",
    "waiting": "dim",
    "interrupted": "yellow",
    "completed": "green",
    "stopped": "dim",
    "failed": "red",
}
WIDE = 112  # columns from which there is room for a bar and the last val_loss beside the hyper-parameters
# The varying hyper-parameters that a narrow terminal shows first.
LEADING = ("model.backbone", "train.lr", "train.optimizer")
Part = Mapping[int, float]  # trial -> how much of its current epoch is done


@dataclass(frozen=True)
class View:
    """All that a picture of a sweep shows.

    elapsed: this process's wall time in seconds, None for a run that is only looked at. part: how much of the current
    epoch is done, by trial. notes: the latest messages. bars: whether to draw progress bars where the width allows.
    """

    title: str
    location: str
    total: int
    rows: Sequence[Row]
    fields: Sequence[str]
    rungs: Sequence[RungState] = ()
    compare: str = "fraction"
    metric: str = "val_loss"
    elapsed: float | None = None
    part: Part = field(default_factory=dict)
    notes: Sequence[str] = ()
    bars: bool = True


class Screen:
    """A renderable that fits the terminal: at every refresh it asks for a new `View` and draws as much as fits."""

    def __init__(self, view: Callable[[], View]) -> None:
        self.view = view

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield picture(self.view(), options.max_width, console.size.height - 1)


def picture(view: View, width: int, height: int | None, most: int | None = None) -> RenderableType:
    """Header, trials, rungs, failures and notes within `width` columns and `height` lines. If `height` is None there is
    no limit to the lines, and at most `most` trials are drawn, or all."""
    parts: list[RenderableType] = [header(view, width), Text("")]
    ladder = rung_table(view, width)
    lost = failures(view.rows, 3 if height is None or height >= 30 else 1, width)
    messages = [Text(note, "dim", no_wrap=True, overflow="ellipsis") for note in view.notes[-2:]]
    below: list[RenderableType] = []
    room = len(view.rows) if most is None else most
    if height is not None:
        # Seven lines: title, counts, two of the best, a blank, the table's head, and one for the trials left out.
        room = height - 7 - len(lost) - len(messages)
        with_ladder = room - 5
        if ladder is not None and with_ladder >= 5:
            room = with_ladder
        else:
            ladder = None
    shown, left = words.choose(view.rows, max(room, 3))
    parts.append(trial_table(view, shown, width))
    if left:
        tally = words.counts_text(words.counts(left, 0))
        below.append(Text(f"and {len(left)} more: {tally}", "dim", no_wrap=True, overflow="ellipsis"))
    if ladder is not None:
        below += [Text(""), ladder]
    return Group(*parts, *below, *lost, *messages)


def header(view: View, width: int) -> RenderableType:
    """Four lines: title and times, progress with counts, and two of the best trial with its hyper-parameters."""
    top = Text.assemble((view.title, "bold"), ("  " + view.location, "dim"), no_wrap=True, overflow="ellipsis")
    times = []
    left = words.seconds_left(view.rows, view.total)
    if view.elapsed is not None:
        times.append(f"{words.duration(view.elapsed)} so far")
        if left is not None:
            times.append(f"about {words.duration(left)} left")
    line = Table.grid(expand=True, padding=(0, 2))
    line.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    line.add_column(justify="right", no_wrap=True)
    line.add_row(top, Text(", ".join(times)))
    counts = words.counts(view.rows, view.total)
    done = sum(counts.get(status, 0) for status in words.FINAL)
    counted = Text(f"{done}/{view.total} trials: ")
    for index, (status, number) in enumerate(counts.items()):
        counted.append(", " if index else "").append(f"{number} {status}", STYLES[status])
    if view.bars and width >= 100:
        bar = ProgressBar(total=max(view.total, 1), completed=done, width=min(30, width // 4))
        progress: RenderableType = _beside(bar, counted)
    else:
        progress = counted
        counted.no_wrap, counted.overflow = True, "ellipsis"
    return Group(line, progress, *best_lines(view))


def _beside(bar: ProgressBar, counted: Text) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(width=bar.width)
    grid.add_column(no_wrap=True, overflow="ellipsis")
    grid.add_row(bar, counted)
    return grid


def best_lines(view: View) -> list[Text]:
    """The trial with the lowest val_loss so far, and its hyper-parameters."""
    best = words.leader(view.rows)
    if best is None:
        return [Text("best  none yet", "dim"), Text("")]
    first = Text("best  ", no_wrap=True, overflow="ellipsis")
    first.append(f"trial {best.number}", "bold").append(f", epoch {best.best_epoch} of {best.epochs}: val_loss ")
    first.append(words.number(best.best), "bold green").append(f", val_accuracy {words.percent(best.accuracy)} %")
    names = words.short_names(view.fields)
    values = ", ".join(f"{names[name]} {words.short(best.values.get(name))}" for name in view.fields)
    return [first, Text(f"      {values}", "dim", no_wrap=True, overflow="ellipsis")]


def trial_table(view: View, shown: Sequence[Row], width: int) -> RenderableType:
    """One line for each trial. The varying hyper-parameters fill the width that is left; those that don't fit are
    counted in the last column."""
    best = words.leader(view.rows)
    bar = 10 if view.bars and width >= WIDE else 0
    columns: list[tuple[str, str, list[str]]] = [
        ("trial", "right", [f"{'*' if best and each.number == best.number else ''}{each.number}" for each in shown]),
        ("status", "left", [each.status for each in shown]),
        ("epoch", "right", [_epoch(each, view.part) for each in shown]),
        ("val_loss", "right", [words.number(each.best) for each in shown]),
        ("at", "right", [str(each.best_epoch or "-") for each in shown]),
        *(
            (metric.column, "right", [words.percent(each.metrics.get(name, math.nan)) for each in shown])
            for name, metric in METRICS.items()
            if metric.column
        ),
    ]
    if width >= WIDE:
        lasts = [
            f"{each.last:.4g}" if each.epoch and not math.isfinite(each.last) else words.number(each.last)
            for each in shown
        ]
        columns.insert(3, ("last", "right", lasts))
    gap = 2 if width >= 100 else 1
    room = width - sum(_width(head, cells) + gap for head, _, cells in columns) - (bar + gap if bar else 0) - 2  # "+3"
    names = words.short_names(view.fields)
    fields = [name for name in view.fields if name != "train.epochs"]  # the epoch column shows it
    texts = {name: [words.short(each.values.get(name)) for each in shown] for name in fields}
    fitting = set()
    for name in sorted(fields, key=lambda name: name not in LEADING):
        need = _width(names[name], texts[name]) + gap
        if need <= room:
            room -= need
            fitting.add(name)
    for name in fields:
        if name in fitting:
            numeric = all(isinstance(each.values.get(name), (int, float, type(None))) for each in shown)
            columns.append((names[name], "right" if numeric else "left", texts[name]))
    hidden = len(fields) - len(fitting)
    table = Table(box=None, padding=(0, gap, 0, 0), header_style="dim", pad_edge=False, show_edge=False)
    for head, justify, cells in columns:
        table.add_column(head, justify=justify, no_wrap=True, width=_width(head, cells))  # type: ignore[arg-type]
        if bar and head == "epoch":
            table.add_column("", width=bar, no_wrap=True)
    if hidden:
        table.add_column(f"+{hidden}", style="dim")
    for index, each in enumerate(shown):
        line: list[RenderableType] = []
        for head, _, cells in columns:
            line.append(Text(cells[index], STYLES[each.status]) if head == "status" else cells[index])
            if bar and head == "epoch":
                line.append(
                    ProgressBar(
                        total=max(each.epochs, 1), completed=each.epoch + view.part.get(each.number, 0.0), width=bar
                    )
                )
        quiet = "dim" if each.status in ("stopped", "waiting") else ""
        table.add_row(*line, style="bold" if best and each.number == best.number else quiet)
    return table


def rung_table(view: View, width: int) -> Table | None:
    """The scheduler's rungs side by side: how many trials reached each, how many went on, and the value to pass."""
    rungs = list(view.rungs)
    if not rungs:
        return None
    rungs = rungs[: max((width - 10) // 10, 1)]
    several = len({state.bracket for state in rungs}) > 1
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("rungs", style="dim", no_wrap=True)
    for state in rungs:
        table.add_column(
            f"{f'b{state.bracket} ' if several else ''}{rung_name(state, view.compare)}", justify="right", no_wrap=True
        )
    table.add_row("reached", *(str(state.entries) for state in rungs))
    table.add_row("went on", *(str(state.promoted) for state in rungs))
    table.add_row(
        "to pass" if view.metric == "val_loss" else view.metric,
        *("-" if state.cutoff is None else words.number(state.cutoff) for state in rungs),
    )
    return table


def rung_name(state: RungState, compare: str) -> str:
    return f"{100 * state.rung:.3g} %" if compare == "fraction" else f"epoch {state.rung:.3g}"


def failures(rows: Sequence[Row], most: int, width: int) -> list[Text]:
    """The latest failed trials with their reasons, one line each, after a blank line."""
    failed = [each for each in rows if each.status == "failed"]
    if not failed:
        return []
    lines = [Text("")]
    for each in failed[-most:]:
        reason = printable(" ".join(each.reason.split()))
        line = Text(f"trial {each.number} failed: ", "red", no_wrap=True, overflow="ellipsis")
        lines.append(line.append(reason, "default"))
    if len(failed) > most:
        lines[-1].truncate(max(width - 20, 20), overflow="ellipsis")
        lines[-1].append(f"  ({len(failed) - most} more)", "dim")
    return lines


def _epoch(each: Row, part: Part) -> str:
    share = part.get(each.number, 0.0)
    return f"{math.floor(10 * (each.epoch + share)) / 10:.1f}/{each.epochs}" if share else f"{each.epoch}/{each.epochs}"


def _width(head: str, cells: Sequence[Any]) -> int:
    return max([len(head), *(len(cell) for cell in cells)])
