"""A run drawn for a terminal: tables and lines of the live display, `show` and `ls`. Rich only, no state."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fashion.display import rows as words
from fashion.display.columns import CALM, STYLES, Column, columns, fitting
from fashion.display.rows import Row
from fashion.errors import printable
from fashion.schedulers.base import Missed, RungState
from fashion.schedulers.metrics import METRICS

WIDE = 100  # columns from which columns stand two apart, and the header has a bar
Part = Mapping[int, float]  # trial -> how much of its current epoch is done
SPINNER, SPINNER_ASCII = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", "|/-\\"
TURNS = 8  # of the spinner's pictures a second


@dataclass(frozen=True)
class View:
    """All that a picture of a sweep shows.

    elapsed: this process's wall time in seconds, None for a run that is only looked at. part: how much of the current
    epoch is done, by trial. missed: why trials were stopped. waiting: what the sweep waits for now, or empty. notes:
    the latest messages. bars: whether to draw progress bars and learning curves where the width allows. ascii: whether
    the terminal has no other characters.
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
    missed: Mapping[int, Missed] = field(default_factory=dict)
    waiting: str = ""
    notes: Sequence[str] = ()
    bars: bool = True
    ascii: bool = False


def picture(view: View, width: int, height: int | None, most: int | None = None) -> RenderableType:
    """Header, trials, rungs, failures and notes within `width` columns and `height` lines. If `height` is None there is
    no limit to the lines, and at most `most` trials are drawn, or all."""
    fields = words.by_importance(view.fields, view.rows)
    top = header(view, fields, width, 2 if height is None or height >= 20 else 1)
    ladder, moved = rung_table(view, width), rungs_moved(view, width)
    lost = failures(view.rows, 3 if height is None or height >= 30 else 1, width)
    messages = [Text(note, "dim", no_wrap=True, overflow="ellipsis") for note in view.notes[-2:]]
    if view.waiting:
        messages.append(_spinner(view))
    room = len(view.rows) if most is None else most
    if height is not None:
        # Four more lines: a blank one, the table's head, the columns and the trials that are left out.
        room = height - len(top) - 4 - len(lost) - len(messages)
        for with_ladder in (5 + len(moved), 5, 0):
            if room - with_ladder >= 5 or not with_ladder:
                moved = moved if with_ladder > 5 else []
                ladder = ladder if with_ladder else None
                room -= with_ladder if ladder is not None else 0
                break
    shown, left = words.choose(view.rows, max(room, 3))
    parts: list[RenderableType] = [*top, Text(""), *trial_table(view, fields, shown, width)]
    if left:
        tally = words.counts_text(words.counts(left, 0))
        parts.append(Text(f"and {len(left)} more: {tally}", "dim", no_wrap=True, overflow="ellipsis"))
    if ladder is not None:
        parts += [Text(""), ladder, *moved]
    return Group(*parts, *lost, *messages)


def header(view: View, fields: Sequence[str], width: int, most: int) -> list[RenderableType]:
    """Lines: title and times, progress with counts, and the best trial with its hyper-parameters in `most` lines."""
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
    counted = Text(f"{done}/{view.total} trials: ", no_wrap=True, overflow="ellipsis")
    for index, (status, number) in enumerate(counts.items()):
        counted.append(", " if index else "").append(f"{number} {status}", STYLES[status])
    if reused := sum(1 for each in view.rows if each.origin):
        counted.append(f" ({reused} reused)")
    progress: RenderableType = counted
    if view.bars and width >= WIDE:
        bar = ProgressBar(
            total=max(view.total, 1), completed=done, width=min(30, width // 4), style="dim", complete_style=CALM,
            finished_style=CALM,
        )  # fmt: skip
        progress = _beside(bar, counted)
    return [line, progress, *best_lines(view.rows, fields, width, most)]


def _beside(bar: ProgressBar, counted: Text) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(width=bar.width)
    grid.add_column(no_wrap=True, overflow="ellipsis")
    grid.add_row(bar, counted)
    return grid


def best_lines(rows: Sequence[Row], fields: Sequence[str], width: int, most: int) -> list[RenderableType]:
    """The trial with the lowest val_loss so far, and its hyper-parameters, the most important first."""
    best = words.leader(rows)
    if best is None:
        return [Text("best  none yet", "dim"), Text("")]
    accuracy = words.percent(best.accuracy)
    for epoch, share in (
        (f"epoch {best.best_epoch} of {best.epochs}", "val_accuracy"),
        (f"epoch {best.best_epoch}", "val_acc"),
    ):
        first = Text("best  ", no_wrap=True, overflow="ellipsis")
        first.append(f"trial {best.number}", "bold").append(f", {epoch}: val_loss ")
        first.append(words.number(best.best), "bold green").append(f", {share} {accuracy} %")
        if first.cell_len <= width:
            break
    names = words.short_names(fields)
    values = ", ".join(f"{names[name]} {words.short(best.values.get(name))}" for name in fields)
    lines = textwrap.wrap(values, max(width - 6, 20), max_lines=most, placeholder=" ...") or [""]
    return [first, *(Text(f"      {line}", no_wrap=True, overflow="ellipsis") for line in lines)]


def trial_table(view: View, fields: Sequence[str], shown: Sequence[Row], width: int) -> list[RenderableType]:
    """One line for each trial, and one that names the columns for which there is no room."""
    best = words.leader(view.rows)
    gap = 2 if width >= WIDE else 1
    drawn = view.bars and not view.ascii
    kept, hidden = fitting(columns(shown, fields, view.part, view.metric, best, drawn), width, gap)
    table = Table(box=None, padding=(0, gap, 0, 0), header_style="dim", pad_edge=False, show_edge=False)
    for column in kept:
        justify = "right" if column.right else "left"
        table.add_column(Text(column.head), justify=justify, no_wrap=True, width=column.width)  # type: ignore[arg-type]
    for index, each in enumerate(shown):
        quiet = "dim" if each.status in ("stopped", "waiting") else ""
        style = "bold" if best and each.number == best.number else quiet
        table.add_row(*(column.cells[index] for column in kept), style=style)
    return [table, *_left_out(hidden, width)]


def _left_out(hidden: Sequence[Column], width: int) -> list[Text]:
    names = [column.head for column in hidden if column.head]
    if not names:
        return []
    what = "no room for "
    return [Text(what + words.listed(names, width - len(what)), "dim", no_wrap=True, overflow="ellipsis")]


def rung_table(view: View, width: int) -> Table | None:
    """The scheduler's rungs side by side: how many trials reached each, how many went on, and the value that the next
    one needs."""
    rungs = list(view.rungs)
    if not rungs:
        return None
    metric = view.metric if view.metric != "val_loss" else ""
    label = f"next needs {metric}".rstrip()
    rungs = rungs[: max((width - len(label) - 2) // 10, 1)]
    several = len({state.bracket for state in rungs}) > 1
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("rungs", style="dim", no_wrap=True)
    for state in rungs:
        table.add_column(
            f"{f'b{state.bracket} ' if several else ''}{rung_name(state.rung, view.compare)}", justify="right",
            no_wrap=True,
        )  # fmt: skip
    table.add_row("reached", *(str(state.entries) for state in rungs))
    table.add_row("went on", *(str(state.promoted) for state in rungs))
    table.add_row(label, *("-" if state.cutoff is None else words.number(state.cutoff) for state in rungs))
    return table


def rungs_moved(view: View, width: int) -> list[Text]:
    """A sentence where a stopped trial would go on today: without it, the table of rungs seems to contradict the
    decision."""
    sign = 1.0 if METRICS[view.metric].mode == "min" else -1.0
    now = {state.rung: sign * state.cutoff for state in view.rungs if state.cutoff is not None}
    stopped = {each.number for each in view.rows if each.status == "stopped"}
    passing = [
        (sign * missed.value, number)
        for number, missed in view.missed.items()
        if number in stopped and sign * missed.value <= now.get(missed.progress, -float("inf"))
    ]
    if not passing:
        return []
    number = min(passing)[1]
    missed = view.missed[number]
    others = f", and so it was with {len(passing) - 1} more" if len(passing) > 1 else ""
    text = (
        f"Rungs move as trials arrive: trial {number} had {words.number(missed.value)} when "
        f"{words.number(missed.needed)} was needed{others}."
    )
    return [Text(line, "dim", no_wrap=True, overflow="ellipsis") for line in textwrap.wrap(text, max(width, 20))[:2]]


def rung_name(rung: float, compare: str) -> str:
    return f"{100 * rung:.3g} %" if compare == "fraction" else f"epoch {rung:.3g}"


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


def _spinner(view: View) -> Text:
    frames = SPINNER_ASCII if view.ascii else SPINNER
    frame = frames[int(time.monotonic() * TURNS) % len(frames)]
    return Text(f"{frame} {view.waiting}", CALM, no_wrap=True, overflow="ellipsis")
