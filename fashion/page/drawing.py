"""A drawing of lines, rectangles and words, written as SVG for the page or on its own, or as PNG."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

# Style -> (stroke, fill, width, dashes), as page.css has them in the light theme: a file on its own has no style sheet.
STYLES: dict[str, tuple[str, str, float, str]] = {
    "axis": ("#545c66", "none", 1, ""),
    "grid": ("#d5dae0", "none", 1, ""),
    "rung": ("#545c66", "none", 1, "4 3"),
    "train": ("#3a4f63", "none", 1.8, "5 3"),
    "val": ("#0b5cad", "none", 2, ""),
    "winner": ("#b3400a", "none", 2.2, ""),
    "range": ("#1b1f24", "none", 1.6, ""),
    "bar": ("none", "#7a9cc4", 0, ""),
    "bar-other": ("none", "#a3a9b0", 0, ""),
    "bar-bad": ("none", "#c2632f", 0, ""),
    "mark": ("none", "#0b5cad", 0, ""),
    "mark-winner": ("none", "#b3400a", 0, ""),
    "band": ("none", "#e3edfb", 0, ""),
    "text": ("none", "#1b1f24", 0, ""),
    "dim": ("none", "#545c66", 0, ""),
    "bold": ("none", "#1b1f24", 0, ""),
}
FONT = 11  # units, which are pixels on the page at its natural size
Point = tuple[float, float]


@dataclass(frozen=True)
class Stroke:
    """A line through points, (x, y) from the upper left corner."""

    style: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Bar:
    """A filled rectangle. title: what the page tells a pointer that rests on it."""

    style: str
    x: float
    y: float
    width: float
    height: float
    title: str = ""


@dataclass(frozen=True)
class Word:
    """A text. x, y: its base line's start, middle or end, as `anchor` says."""

    style: str
    x: float
    y: float
    text: str
    anchor: str = "start"


@dataclass
class Drawing:
    """width, height in units. label: what it shows, for those who can't see it."""

    width: float
    height: float
    label: str
    shapes: list[Stroke | Bar | Word] = field(default_factory=list)

    def line(self, style: str, *points: Point) -> None:
        self.shapes.append(Stroke(style, points))

    def bar(self, style: str, x: float, y: float, width: float, height: float, title: str = "") -> None:
        self.shapes.append(Bar(style, x, y, max(width, 0), max(height, 0), title))

    def word(self, x: float, y: float, text: str, style: str = "text", anchor: str = "start", most: int = 60) -> None:
        self.shapes.append(Word(style, x, y, text if len(text) <= most else text[: most - 1] + "…", anchor))

    def svg(self, alone: bool = False) -> str:
        """SVG. alone: with its colours, for a file; on the page the style sheet has them."""
        size = f'viewBox="0 0 {self.width:g} {self.height:g}"'
        if alone:
            size += f' xmlns="http://www.w3.org/2000/svg" width="{self.width:g}" height="{self.height:g}"'
            size += f' font-family="DejaVu Sans, sans-serif" font-size="{FONT}"'
        parts = [f'<svg class="drawing" {size} role="img" aria-label="{escape(self.label)}">']
        if alone:
            parts.append('<rect width="100%" height="100%" fill="#ffffff"/>')
        parts += [_svg(each, _looks(each.style) if alone else f'class="{each.style}"') for each in self.shapes]
        return "".join([*parts, "</svg>"])

    def png(self, dots: int = 192) -> bytes:
        """The same as a PNG. dots: pixels of 96 units."""
        from fashion.data.stats import without_markup

        content = io.BytesIO()
        with without_markup():
            self._figure(dots).savefig(content, format="png", dpi=dots)
        return content.getvalue()

    def _figure(self, dots: int) -> Any:
        """The matplotlib figure."""
        from matplotlib.figure import Figure  # without pyplot: no display, no global state
        from matplotlib.lines import Line2D
        from matplotlib.patches import Rectangle

        figure = Figure(figsize=(self.width / 96, self.height / 96), dpi=dots)
        plane = figure.add_axes((0, 0, 1, 1))
        plane.set_xlim(0, self.width)
        plane.set_ylim(self.height, 0)
        plane.set_axis_off()
        points = 72 / 96  # a unit in typographic points
        places = {"start": "left", "middle": "center", "end": "right"}
        for each in self.shapes:
            stroke, fill, width, dashes = STYLES[each.style]
            if isinstance(each, Stroke):
                xs, ys = zip(*each.points, strict=True)
                line = Line2D(xs, ys, color=stroke, linewidth=width * points)
                if dashes:
                    line.set_dashes([float(part) * points for part in dashes.split()])
                plane.add_line(line)
            elif isinstance(each, Bar):
                plane.add_patch(Rectangle((each.x, each.y), each.width, each.height, facecolor=fill, edgecolor="none"))
            else:
                weight = "bold" if each.style == "bold" else "normal"
                plane.text(each.x, each.y, each.text, color=fill, fontsize=FONT * points, ha=places[each.anchor],
                           va="baseline", weight=weight)  # fmt: skip
        return figure


def _looks(style: str) -> str:
    stroke, fill, width, dashes = STYLES[style]
    text = f'stroke="{stroke}" fill="{fill}"'
    if width:
        text += f' stroke-width="{width:g}"'
    if dashes:
        text += f' stroke-dasharray="{dashes}"'
    return text + (' font-weight="700"' if style == "bold" else "")


def _at(value: float) -> str:
    """A coordinate, as short as it may be: a long sweep has thousands of bars."""
    return f"{value:.1f}".removesuffix(".0")


def _svg(shape: Stroke | Bar | Word, looks: str) -> str:
    if isinstance(shape, Stroke):
        points = " ".join(f"{_at(x)},{_at(y)}" for x, y in shape.points)
        return f'<polyline {looks} points="{points}"/>'
    if isinstance(shape, Bar):
        place = f'x="{_at(shape.x)}" y="{_at(shape.y)}" width="{_at(shape.width)}" height="{_at(shape.height)}"'
        title = f"<title>{escape(shape.title)}</title>" if shape.title else ""
        return f"<rect {looks} {place}>{title}</rect>"
    anchor = "" if shape.anchor == "start" else f' text-anchor="{shape.anchor}"'
    return f'<text {looks} x="{_at(shape.x)}" y="{_at(shape.y)}"{anchor}>{escape(shape.text)}</text>'


def round_ticks(low: float, high: float, most: int = 5) -> Sequence[float]:
    """Round numbers from low to high, at most about `most` of them."""
    if not high > low:
        return [low]
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(each * power for each in (1, 2, 5, 10) if each * power >= rough * 0.999)
    return [step * at for at in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
