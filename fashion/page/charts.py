"""The page's static drawings. Each is wide enough to be read on a phone, where it fills the screen."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from fashion.display.rows import Row, duration
from fashion.page.attributes import AttributeResult
from fashion.page.drawing import Drawing, Point, round_ticks
from fashion.page.gather import PageRun
from fashion.page.importance import RungImportance
from fashion.record.ranking import AttributeRow, attribute_table
from fashion.record.trial import EpochReport
from fashion.record.validate import known_counts

WIDTH = 380.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 12.0, 26.0, 34.0
LANES = 40  # slots that are drawn


def curve_chart(reports: Sequence[EpochReport], kind: str) -> Drawing | None:
    """kind: "loss" or "accuracy", of train and val by epoch (the challenge report's Figures 4 and 5)."""
    lines: dict[str, list[Point]] = {}
    for split in ("train", "val"):
        name = f"{split}_{kind}"
        points = [(float(each.epoch), each.metrics[name]) for each in reports
                  if math.isfinite(each.metrics.get(name, math.nan))]  # fmt: skip
        if points:
            lines[split] = points
    if not lines:
        return None
    values = [value for points in lines.values() for _, value in points]
    low, high = min(values), max(values)
    low, high = (low, high) if high > low else (low - 0.5, high + 0.5)
    first, last = 1.0, max(2.0, *(epoch for points in lines.values() for epoch, _ in points))
    height = 230.0
    drawing = Drawing(WIDTH, height, f"{' and '.join(f'{split}_{kind}' for split in lines)} of the winner by epoch")

    def place(point: Point) -> Point:
        x = LEFT + (point[0] - first) / (last - first) * (WIDTH - LEFT - RIGHT)
        return x, height - BOTTOM - (point[1] - low) / (high - low) * (height - BOTTOM - TOP)

    for tick in round_ticks(low, high):
        _, y = place((first, tick))
        drawing.line("grid", (LEFT, y), (WIDTH - RIGHT, y))
        drawing.word(LEFT - 6, y + 4, f"{100 * tick:.3g} %" if kind == "accuracy" else f"{tick:.4g}", "dim", "end")
    for tick in round_ticks(first, last, 8):
        if tick == round(tick):
            drawing.word(place((tick, low))[0], height - 18, f"{tick:.0f}", "dim", "middle")
    drawing.word((LEFT + WIDTH) / 2, height - 3, "epoch", "dim", "middle")
    x = LEFT
    for split, points in lines.items():
        drawing.line("train" if split == "train" else "val", *map(place, points))
        if len(points) == 1:
            dot = place(points[0])
            drawing.bar("mark", dot[0] - 2.5, dot[1] - 2.5, 5, 5)
        drawing.line("train" if split == "train" else "val", (x, 11), (x + 22, 11))
        drawing.word(x + 27, 15, f"{split}_{kind}")
        x += 120
    return drawing


def importance_chart(found: RungImportance, labels: Mapping[str, str]) -> Drawing:
    """A bar a field with its interval, as shares of the sum."""
    rows = found.fields[:12]
    height = 22.0 * len(rows) + 26
    left, span = 128.0, WIDTH - 128.0 - 44
    drawing = Drawing(WIDTH, height, f"importance of the sampled fields {found.place}")
    for index, each in enumerate(rows):
        y = 6 + 22.0 * index
        drawing.word(left - 6, y + 12, labels.get(each.field, each.field), anchor="end", most=18)
        drawing.bar("bar" if each.told else "bar-other", left, y + 2, span * each.share, 13,
                    f"{each.field}: {each.share:.0%}, between {each.low:.0%} and {each.high:.0%}")  # fmt: skip
        drawing.line("range", (left + span * each.low, y + 8.5), (left + span * min(each.high, 1), y + 8.5))
        drawing.word(WIDTH - 2, y + 12, f"{each.share:.0%}", "text" if each.told else "dim", "end")
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        drawing.word(left + span * tick, height - 3, f"{tick:.0%}", "dim", "middle")
    return drawing


def distribution_charts(run: PageRun) -> Iterator[tuple[AttributeRow, Drawing]]:
    """One for each attribute whose classes the run has counted."""
    if not run.manifest["label_counts"]:
        return
    known = {split: known_counts(run.manifest, split) for split in ("train", "val")}
    for head, row in enumerate(attribute_table(run.manifest, {})):
        # Of a multi-label attribute the shares are those of the images that are labelled for most of its classes.
        yield row, distribution_chart(row, max(known["train"][head], default=0), max(known["val"][head], default=0))


def distribution_chart(row: AttributeRow, train_images: int, val_images: int, most: int = 30) -> Drawing:
    """The share of each class in both splits, with its count (the challenge report's Figures 1 and 2). Of more than
    `most` classes it draws the most frequent ones."""
    classes, train, val = row.classes, row.train_counts, row.val_counts
    order = sorted(range(len(classes)), key=lambda index: -train[index])[:most] if len(classes) > most else None
    chosen = range(len(classes)) if order is None else order
    totals = max(train_images, 1), max(val_images, 1)
    largest = max(max(t / totals[0], v / totals[1]) for t, v in zip(train, val, strict=True)) or 1.0
    rows, left = len(chosen), 122.0
    span = WIDTH - left - 66
    drawing = Drawing(WIDTH, 30.0 * rows + 24, f"how often each class of {row.name} occurs in train and val")
    drawing.bar("bar-other", left, 4, 11, 11)
    drawing.word(left + 16, 14, "train")
    drawing.bar("mark", left + 70, 4, 11, 11)
    drawing.word(left + 86, 14, "val")
    for line, index in enumerate(chosen):
        y = 22 + 30.0 * line
        drawing.word(left - 6, y + 17, classes[index], anchor="end", most=18)
        for part, (style, counts, total) in enumerate((("bar-other", train, totals[0]), ("mark", val, totals[1]))):
            share = counts[index] / total
            drawing.bar(style, left, y + 3 + 12 * part, span * share / largest, 11,
                        f"{classes[index]}: {counts[index]:,} ({share:.1%})")  # fmt: skip
            drawing.word(left + span * share / largest + 4, y + 12.5 + 12 * part, f"{counts[index]:,}", "dim")
    return drawing


def reliability_chart(result: AttributeResult) -> Drawing:
    """Accuracy against confidence, before and after temperature scaling; a perfect model lies on the diagonal."""
    height, side = 236.0, 180.0
    left, bottom = 46.0, 236.0 - 36
    found = result.calibration
    drawing = Drawing(WIDTH, height, f"reliability of {result.name} before and after temperature scaling")
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = bottom - side * tick
        drawing.line("grid", (left, y), (left + side * 1.2, y))
        drawing.word(left - 6, y + 4, f"{tick:.0%}", "dim", "end")
        drawing.word(left + side * 1.2 * tick, bottom + 15, f"{tick:.0%}", "dim", "middle")
    drawing.line("rung", (left, bottom), (left + side * 1.2, bottom - side))
    for style, shown in (("train", found.before), ("val", found.after)):
        points = [(left + side * 1.2 * each.confidence, bottom - side * each.accuracy) for each in shown.bins
                  if each.confidence is not None and each.accuracy is not None]  # fmt: skip
        if len(points) > 1:
            drawing.line(style, *points)
        for x, y in points:
            drawing.bar("bar-other" if style == "train" else "mark", x - 2.5, y - 2.5, 5, 5)
    drawing.word(left + side * 0.6, height - 6, "confidence", "dim", "middle")
    drawing.word(4, 10, "accuracy", "dim")
    x = left + side * 1.2 + 10
    for line, (style, words, error) in enumerate(
        (("train", "as it is", found.before.ece), ("val", f"T = {found.temperature:.2f}", found.after.ece))
    ):
        y = 40.0 + 46 * line
        drawing.line(style, (x, y), (x + 22, y))
        drawing.word(x, y + 16, words)
        drawing.word(x, y + 30, f"error {100 * error:.1f} %", "dim")
    return drawing


def leaderboard_chart(rows: Sequence[Row], run: PageRun) -> Drawing:
    """val_loss of the best trials with its interval; the tied band is shaded."""
    ends = [run.interval(row.number, "val_loss") for row in rows]
    values = [row.best for row in rows] + [edge for each in ends if each for edge in (each.low, each.high)]
    low, high = min(values), max(values)
    high = high if high > low else low + 1
    left, height = 76.0, 22.0 * len(rows) + 28
    drawing = Drawing(WIDTH, height, "val_loss of the best trials with 95 % intervals")

    def x(value: float) -> float:
        return left + (value - low) / (high - low) * (WIDTH - left - 14)

    for index, row in enumerate(rows):
        if row.number in run.tied:
            drawing.bar("band", 0, 22.0 * index + 2, WIDTH, 22)
    for index, (row, interval) in enumerate(zip(rows, ends, strict=True)):
        y = 22.0 * index + 13
        drawing.word(6, y + 4, f"trial {row.number}", "bold" if index == 0 else "text")
        if interval is not None:
            drawing.line("range", (x(interval.low), y), (x(interval.high), y))
        drawing.bar("mark-winner" if index == 0 else "mark", x(row.best) - 3.5, y - 3.5, 7, 7)
    for tick in round_ticks(low, high):
        drawing.word(x(tick), height - 5, f"{tick:.4g}", "dim", "middle")
    return drawing


def slots_chart(run: PageRun) -> Drawing | None:
    """Which trial was in which slot when. None for a run that recorded no slots."""
    spans: dict[tuple[str, int], list[tuple[float, float, int, str]]] = {}
    for trial in run.trials:
        for use in trial.slots:
            ends = [_seconds(each.time) for each in trial.reports if each.attempt == use.attempt and each.time]
            if use.time and ends:
                span = (_seconds(use.time), max(ends), trial.number, trial.status)
                spans.setdefault((use.node, use.slot), []).append(span)
    if not spans:
        return None
    start = min(span[0] for each in spans.values() for span in each)
    end = max(max(span[1] for each in spans.values() for span in each), start + 1e-3)
    shown = sorted(spans)[:LANES]
    width, left = 2 * WIDTH, 118.0
    drawing = Drawing(width, 24.0 * len(shown) + 28, "trials on slots over time")

    def x(moment: float) -> float:
        return left + (moment - start) / (end - start) * (width - left - 20)

    styles = {"completed": "bar", "stopped": "bar-other", "failed": "bar-bad"}
    for line, key in enumerate(shown):
        y = 4 + 24.0 * line
        drawing.word(4, y + 14, f"{key[0]} slot {key[1]}", most=18)
        for begun, ended, number, status in spans[key]:
            wide = max(x(ended) - x(begun) - 1, 1)
            title = f"trial {number}, {status}, {duration(ended - begun)}"
            drawing.bar(styles.get(status, "mark"), x(begun), y + 2, wide, 17, title)
            if wide > 24:
                drawing.word(x(begun) + 3, y + 15, str(number))
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        at = left + share * (width - left - 20)
        anchor = "end" if share == 1 else "middle"
        drawing.word(at, 24.0 * len(shown) + 22, duration(share * (end - start)), "dim", anchor)
    return drawing


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()
