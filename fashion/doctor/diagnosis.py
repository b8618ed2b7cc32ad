"""What an examination says: one diagnosis for each thing that was looked at on a node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fashion.errors import Problem

HERE = "this machine"


@dataclass(frozen=True)
class Diagnosis:
    """One thing that was looked at on one node.

    `problem.value` is what was found there. `problem.fix` is empty where all is well.
    """

    check: str
    node: str
    ok: bool
    problem: Problem

    def to_json(self) -> dict[str, Any]:
        found = self.problem
        return {"check": self.check, "node": self.node, "ok": self.ok, "place": found.place, "value": found.value,
                "rule": found.rule, "fix": found.fix}  # fmt: skip


@dataclass(frozen=True)
class ClockOffset:
    """By how many seconds one clock is ahead of another: at least `low`, at most `high`."""

    low: float
    high: float

    def may_be_within(self, seconds: float) -> bool:
        """Whether the offset may be that small. A slow network widens the bounds, which alone is no fault."""
        return self.low <= seconds and self.high >= -seconds

    def describe(self, digits: int) -> str:
        middle, spread = (self.low + self.high) / 2, (self.high - self.low) / 2
        return f"{middle:+.{digits}f} s, give or take {spread:.{digits}f}"
