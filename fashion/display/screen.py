"""The part of the terminal that the live display paints again and again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderResult
from rich.control import Control
from rich.live import Live
from rich.segment import ControlType, Segment

from fashion.display.tables import View, picture


class Screen:
    """A renderable that fits the terminal: at every refresh it asks for a new `View` and draws as much as fits.
    `lengths` holds the columns of each line that it drew last."""

    def __init__(self, view: Callable[[], View]) -> None:
        self.view = view
        self.lengths: list[int] = []

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        drawn = picture(self.view(), options.max_width, console.size.height - 1)
        lines = console.render_lines(drawn, options, pad=False)
        self.lengths = [Segment.get_line_length(line) for line in lines]
        for line in lines:
            yield from line
            yield Segment.line()


class Repainted(Live):
    """A live picture that is wiped away whole where the terminal has another size than at the last refresh.

    A narrower terminal breaks the lines that stand there anew, so that the picture begins further up than it has lines.
    They are wiped line by line: what is cleared as a whole screen, terminals keep among the lines to scroll back to,
    where picture would follow upon picture.
    """

    def __init__(self, screen: Screen, *arguments: Any, **options: Any) -> None:
        super().__init__(screen, *arguments, **options)
        self._drawn = screen
        self._painted: tuple[int, int] | None = None

    def process_renderables(self, renderables: Sequence[ConsoleRenderable]) -> list[ConsoleRenderable]:
        width, height = self.console.size
        rows = sum(max(-(-length // width), 1) for length in self._drawn.lengths)
        found = super().process_renderables(list(renderables))
        if self._painted not in (None, (width, height)) and self.console.is_interactive:
            up = [(ControlType.CURSOR_UP, 1), (ControlType.ERASE_IN_LINE, 2)] * (min(rows, height) - 1)
            # Instead of the way up over as many lines as the picture had.
            found[0] = Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2), *up)
        self._painted = (width, height)
        return found
