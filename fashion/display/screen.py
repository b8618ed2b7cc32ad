"""The part of the terminal that the live display paints again and again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderResult
from rich.control import Control
from rich.live import Live
from rich.segment import ControlType

from fashion.display.tables import View, picture


class Screen:
    """A renderable that fits the terminal: at every refresh it asks for a new `View` and draws as much as fits."""

    def __init__(self, view: Callable[[], View]) -> None:
        self.view = view

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield picture(self.view(), options.max_width, console.size.height - 1)


class Repainted(Live):
    """A live picture that clears the screen when the terminal has another size than at the last refresh.

    A terminal breaks the lines that stand there anew, each in its own way, so that nobody knows how many lines up the
    former picture begins: parts of it would stay behind.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._painted: tuple[int, int] | None = None

    def process_renderables(self, renderables: Sequence[ConsoleRenderable]) -> list[ConsoleRenderable]:
        size = self.console.size
        found = super().process_renderables(list(renderables))
        if self._painted not in (None, (size.width, size.height)) and self.console.is_interactive:
            found[0] = Control(ControlType.HOME, ControlType.CLEAR)  # instead of the way up
        self._painted = (size.width, size.height)
        return found
