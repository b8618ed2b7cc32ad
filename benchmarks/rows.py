"""A benchmark's result: rows of figures, and contenders run in turn so that a busy machine is busy for all of them."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

SILENT_SECONDS = 2.0  # a figure that took longer is told as soon as it is there


@dataclass(frozen=True)
class Row:
    """One contender's figure. `ratio` says how it compares (see the benchmark's docstring for with whom), `target` what
    is wanted of the ratio or the value, as text ("ratio >= 10"), `met` whether it is; both None where nothing is
    wanted."""

    id: str
    contender: str
    value: float
    unit: str
    ratio: float | None = None
    target: str | None = None
    met: bool | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def in_turn(contenders: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Each contender's figures, one a round; contender after contender within a round, the order reversed in every
    other one, so that a drift of the machine's speed hits all alike."""
    figures: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds):
        names = list(contenders) if number % 2 == 0 else list(contenders)[::-1]
        for name in names:
            started = time.monotonic()
            figures[name].append(contenders[name]())
            if time.monotonic() - started > SILENT_SECONDS:
                tell(f"round {number + 1} of {rounds}, {name}: {figures[name][-1]:.4g}")
    return figures


def tell(line: str) -> None:
    """A line of progress: a long benchmark is never silent, and what it had measured when it was cut off can be
    read."""
    print(f"      {line}", file=sys.stderr, flush=True)


def medians(figures: Mapping[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in figures.items()}


def median_ratio(figures: Mapping[str, list[float]], name: str, to: str) -> float:
    """The median over rounds of one contender's figure divided by another's of the same round."""
    return statistics.median(a / b for a, b in zip(figures[name], figures[to], strict=True))


def seconds(action: Callable[[], Any]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started
