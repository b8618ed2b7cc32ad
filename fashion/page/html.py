"""Pieces of HTML. Whatever comes from a record is escaped here: class names and reasons are a stranger's text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape as _escape
from typing import Any

from fashion.errors import printable
from fashion.statistics.results import Difference, Interval


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def text(value: Any) -> Markup:
    """Escaped, with control characters and changes of writing direction made visible."""
    return value if isinstance(value, Markup) else Markup(_escape(printable(str(value))))


def tag(name: str, *content: Any, **attributes: Any) -> Markup:
    """An element. An attribute's trailing underscore is dropped (`class_`), others become hyphens; None leaves out."""
    given = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items() if value is not None}
    words = "".join(f' {key}="{text(value)}"' for key, value in given.items())
    return Markup(f"<{name}{words}>{''.join(map(text, content))}</{name}>")


def joined(parts: Iterable[Markup]) -> Markup:
    return Markup("".join(parts))


def table(
    head: Sequence[str], rows: Iterable[Sequence[Any]], caption: str, left: Iterable[int] = (0,),
    classes: Sequence[str] = (),
) -> Markup:  # fmt: skip
    """A table in a box of its own that scrolls sideways. left: the columns of text. classes: of the rows."""
    texts = set(left)

    def cell(kind: str, column: int, value: Any, **more: str) -> Markup:
        return tag(kind, value, class_="text" if column in texts else None, **more)

    heads = tag("tr", *(cell("th", column, name, scope="col") for column, name in enumerate(head)))
    body = [
        tag("tr", *(cell("td", column, value) for column, value in enumerate(row)),
            class_=(classes[index] or None) if index < len(classes) else None)
        for index, row in enumerate(rows)
    ]  # fmt: skip
    return tag(
        "div", tag("table", tag("thead", heads), tag("tbody", *body)),
        class_="scroll", tabindex="0", role="region", aria_label=caption,
    )  # fmt: skip


def percent(share: float) -> str:
    return f"{100 * share:.2f} %" if math.isfinite(share) else "–"


def percent_range(interval: Interval | None) -> str:
    if interval is None or not math.isfinite(interval.low):
        return "–"
    return f"{100 * interval.low:.1f} to {100 * interval.high:.1f} %"


def number_range(interval: Interval | None) -> str:
    return "–" if interval is None else f"{interval.low:.3f} to {interval.high:.3f}"


def points(interval: Difference) -> str:
    return f"{100 * interval.low:+.1f} to {100 * interval.high:+.1f} points"
