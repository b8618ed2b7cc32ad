"""Why a process died: through the trial or a bug, or because its machine went. The two have counts of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

# How Ray (2.60) words it: of an actor whose node is gone (preempted, drained, cut off), in the cause's later lines.
MACHINE_WENT = (
    "the actor's node was ",
    "node has died",
    "node died",
    "node is dead",
    "nodes are dead",
    "node was preempted",
)


def machine_went(kind: str, text: str, preempted: bool = False) -> bool:
    """Whether a process died because its machine was preempted, drained or lost, which is not the trial's fault.

    kind: the exception's type by name. text: the whole of it, not its first line. preempted: what Ray's
    `RayActorError.preempted` says.
    """
    return preempted or kind in ("NodeDiedError", "PreemptionError") or any(word in text for word in MACHINE_WENT)


@dataclass
class Deaths:
    """The deaths of one trial's processes: each with its reason, and whether the machine went."""

    max_failures: int
    max_preemptions: int
    reasons: list[tuple[str, bool]] = field(default_factory=list)

    def add(self, reason: str, machine: bool) -> None:
        self.reasons.append((reason, machine))

    @property
    def too_many(self) -> str:
        """Why the trial is not started again; empty while it is."""
        allowed = ((False, self.max_failures, "process died"), (True, self.max_preemptions, "machine was lost"))
        for machine, most, what in allowed:
            reasons = [reason for reason, went in self.reasons if went is machine]
            if len(reasons) > most:
                return _worded(what, reasons)
        return ""


def _worded(what: str, reasons: Sequence[str]) -> str:
    return f"its {what} {len(reasons)} times: {reasons[-1]}"
