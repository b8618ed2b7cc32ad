"""A chart of curves in text, which fits a terminal of 80 columns and needs no colour to be read."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

HEIGHT = 12  # lines of the plot
MARGIN = 9  # columns of the values at the left
WIDEST = 72  # columns of the plot, on however wide a terminal
# Of the values, the share that sets the scale: a first epoch that is far above the others would flatten all of them.
TELLING = 0.95
FAR = 2.0  # how far above the others, in heights of theirs, a value is before it is cut off


@dataclass(frozen=True)
class ChartCurve:
    """values: x -> y; what is not finite leaves a gap. mark: one character."""

    name: str
    mark: str
    values: Mapping[float, float]
    joined: bool = True


def chart(curves: Sequence[ChartCurve], last: int, width: int, height: int = HEIGHT) -> list[str]:
    """Lines of text of at most `width` columns: the curves from x = 1 to `last`, the later ones over the earlier, with
    axes and a legend. Nothing where no value is finite.

    What lies above the scale is drawn in the topmost line, and the legend says so.
    """
    finite = sorted(y for curve in curves for y in curve.values.values() if math.isfinite(y))
    if not finite:
        return []
    columns = max(min(width - MARGIN - 1, WIDEST), 8)
    low, high, cut = _scale(finite)
    cells = [[" "] * columns for _ in range(height)]

    def column(x: float) -> float:
        return (x - 1) / (last - 1) * (columns - 1) if last > 1 else 0.0

    for curve in curves:
        for at, value in _dots(curve, column):
            share = min(max((value - low) / (high - low), 0.0), 1.0)
            cells[round((1 - share) * (height - 1))][at] = curve.mark
    labelled = {0: high, height // 2: high - (high - low) * (height // 2) / (height - 1), height - 1: low}
    lines = []
    for row, drawn in enumerate(cells):
        label = f"{labelled[row]:.4g}" if row in labelled else ""
        lines.append(f"{label:>{MARGIN - 1}} |{''.join(drawn)}".rstrip())
    lines.append(" " * MARGIN + "+" + "-" * columns)
    lines.append(" " * (MARGIN + 1) + _ticks(last, columns))
    legend = ", ".join(f"{curve.mark} {curve.name}" for curve in curves if curve.values)
    over = sum(1 for value in finite if value > high)
    lines.append(" " * (MARGIN + 1) + legend + (f"; {over} above the scale" if cut and over else ""))
    return lines


def _scale(finite: Sequence[float]) -> tuple[float, float, bool]:
    """The lowest and the highest value that are drawn to scale, and whether some are above it."""
    low, top = finite[0], finite[-1]
    usual = finite[int(TELLING * (len(finite) - 1))]
    if usual > low and top - usual > FAR * (usual - low):
        return low, usual, True
    if top > low:
        return low, top, False
    around = abs(low) * 0.1 or 1.0
    return low - around, top + around, False


def _dots(curve: ChartCurve, column: Callable[[float], float]) -> list[tuple[int, float]]:
    """(column, value) of every dot: the values and, where they are joined, what lies between two neighbours."""

    points = [(column(x), y) for x, y in sorted(curve.values.items())]
    found = [(round(at), y) for at, y in points if math.isfinite(y)]
    if curve.joined:
        for (left, low), (right, high) in pairwise(points):
            if math.isfinite(low) and math.isfinite(high):
                steps = range(math.floor(left) + 1, math.ceil(right))
                found += [(at, low + (high - low) * (at - left) / (right - left)) for at in steps]
    return found


def _ticks(last: int, columns: int) -> str:
    """The first, the middle and the last epoch below their columns."""
    text = list(" " * columns)
    for epoch in sorted({1, (1 + last) // 2, last}, reverse=True):
        label = str(epoch)
        at = round((epoch - 1) / (last - 1) * (columns - 1)) if last > 1 else 0
        start = max(min(at - len(label) // 2, columns - len(label)), 0)
        if all(each == " " for each in text[max(start - 1, 0) : start + len(label) + 1]):
            text[start : start + len(label)] = label
    return "".join(text).rstrip() + (" epoch" if columns - len("".join(text).rstrip()) >= 6 else "")
