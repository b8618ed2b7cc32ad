"""The columns of the table of trials: which there are, how much each matters, and which of them fit a width."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import RenderableType
from rich.progress_bar import ProgressBar
from rich.text import Text

from fashion.display import rows as words
from fashion.display.rows import Row
from fashion.schedulers.metrics import METRICS

STYLES = {
    "running": "cyan",
    "waiting": "dim",
    "interrupted": "yellow",
    "completed": "green",
    "stopped": "dim",
    "failed": "red",
}
CALM = "cyan"  # what is done, in every bar; red is left to failures
BAR = 10  # columns of a progress bar
CURVE = 12  # most columns of a learning curve
LEAST = 6  # to fewer columns no text is cut
BLOCKS = "▁▂▃▄▅▆▇█"
# Of the losses shown, the share that a curve tells apart: the worst are mostly those of first epochs.
TELLING = 0.9
# Nor is more told apart than so many times what lies between the best and the middle one: with large learning rates
# a third of the trials may have exploded, and beside those all others look alike.
SPREAD = 3.0


@dataclass(frozen=True)
class Column:
    """cells: one for each trial. width: what they need. rank: which column yields first where there is no room for all;
    0 is the last to go. least: the fewest columns of the terminal in which it is of use."""

    head: str
    cells: Sequence[RenderableType]
    width: int
    rank: int
    right: bool = False
    least: int = 0


def columns(
    shown: Sequence[Row], fields: Sequence[str], part: Mapping[int, float], metric: str, best: Row | None, drawn: bool
) -> list[Column]:
    """Every column that the rows could have, in the order in which they stand on the screen.

    fields: the sampled fields, the most important first; their columns yield from the last on. part: how much of the
    current epoch is done, by trial. metric: what the scheduler compares. drawn: whether bars and curves are wanted.
    """
    found = [
        _texts(
            "trial", [f"{'*' if best and each.number == best.number else ''}{each.number}" for each in shown], 0, True
        ),
        _column("status", [Text(_status(each), STYLES[each.status]) for each in shown], 1),
        _texts("epoch", [_epoch(each, part) for each in shown], 4, True),
    ]
    if drawn:
        bars = [_bar(each, part.get(each.number, 0.0)) for each in shown]
        found.append(Column("", bars, BAR, 1003, least=BAR))
    lasts = [f"{each.last:.4g}" if each.epoch and not math.isfinite(each.last) else words.number(each.last)
             for each in shown]  # fmt: skip
    found += [
        _texts("last", lasts, 1001, True),
        _texts("val_loss", [words.number(each.best) for each in shown], 2, True),
        _texts("at", [str(each.best_epoch or "-") for each in shown], 1000, True),
    ]
    for name, row in METRICS.items():
        if row.column:
            shares = [words.percent(each.metrics.get(name, math.nan)) for each in shown]
            found.append(_texts(row.column, shares, 2 if name == metric else 3, True))
    names = words.short_names(fields)
    for rank, name in enumerate(fields, start=10):
        if name == "train.epochs":
            continue  # the epoch column shows it
        numeric = all(isinstance(each.values.get(name), (int, float, type(None))) for each in shown)
        texts = [words.short(each.values.get(name)) for each in shown]
        found.append(_texts(names[name], texts, rank, numeric))
    if drawn and (curves := _curves(shown)):
        found.append(_column("curve", curves, 1002))
    return found


def fitting(found: Sequence[Column], width: int, gap: int) -> tuple[list[Column], list[Column]]:
    """The columns that fit side by side with `gap` between them, and those that don't, the most important first.

    They are taken by importance until one does not fit. If that one is text, it is cut to what is left.
    """
    room = width  # rich counts the gap behind the last one, too
    taken: dict[int, Column] = {}
    ranked = sorted(range(len(found)), key=lambda index: found[index].rank)
    for position, index in enumerate(ranked):
        column = found[index]
        use = min(column.width, room - gap)
        if use < column.least:
            return [taken[each] for each in sorted(taken)], [found[each] for each in ranked[position:]]
        taken[index] = Column(column.head, column.cells, use, column.rank, column.right, column.least)
        room -= use + gap
    return [taken[each] for each in sorted(taken)], []


def _texts(head: str, texts: Sequence[str], rank: int, right: bool) -> Column:
    width = max(map(cell_len, (head, *texts)))
    # A number that is cut off is another number.
    return Column(head, [Text(text) for text in texts], width, rank, right, width if right else min(width, LEAST))


def _column(head: str, texts: Sequence[Text], rank: int) -> Column:
    width = max(len(head), *(text.cell_len for text in texts)) if texts else len(head)
    return Column(head, texts, width, rank, least=width)


def _status(each: Row) -> str:
    return "reused" if each.origin and each.status == "completed" else each.status


def _epoch(each: Row, part: Mapping[int, float]) -> str:
    share = part.get(each.number, 0.0)
    return f"{math.floor(10 * (each.epoch + share)) / 10:.1f}/{each.epochs}" if share else f"{each.epoch}/{each.epochs}"


def _bar(each: Row, share: float) -> ProgressBar:
    colour = STYLES["failed"] if each.status == "failed" else CALM
    return ProgressBar(
        total=max(each.epochs, 1), completed=each.epoch + share, width=BAR, style="dim", complete_style=colour,
        finished_style=colour,
    )  # fmt: skip


def _curves(shown: Sequence[Row]) -> list[Text]:
    """Each trial's val_loss over its own schedule, all to one scale; empty where no trial has two epochs."""
    values = sorted(value for each in shown for value in each.curve if math.isfinite(value))
    if not any(len(each.curve) > 1 for each in shown) or not values:
        return []
    width = min(CURVE, max(each.epochs for each in shown))
    low, middle, high = values[0], values[len(values) // 2], values[int(TELLING * (len(values) - 1))]
    if middle > low:
        high = min(high, low + SPREAD * (middle - low))
    texts = []
    for each in shown:
        done = len(each.curve)
        cells = min(max(round(width * done / max(each.epochs, 1)), 1), width) if done else 0
        points = [each.curve[-(-(cell + 1) * done // cells) - 1] for cell in range(cells)]
        style = STYLES["failed"] if each.status == "failed" else CALM
        texts.append(Text("".join(_block(point, low, high) for point in points).ljust(width), style))
    return texts


def _block(value: float, low: float, high: float) -> str:
    if not math.isfinite(value):
        return " "
    share = (min(value, high) - low) / (high - low) if high > low else 0.0
    return BLOCKS[round(share * (len(BLOCKS) - 1))]
