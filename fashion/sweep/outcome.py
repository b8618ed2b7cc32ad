"""What a sweep came to, as the command, the Python API and scripts are told of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fashion.record.run import Run

Kind = Literal["completed", "interrupted", "failed"]
# As shells and schedulers know them: 130 is what a command that Ctrl-C ended returns.
EXIT_CODES: dict[Kind, int] = {"completed": 0, "interrupted": 130, "failed": 1}


@dataclass(frozen=True)
class SweepOutcome:
    """How a sweep ended.

    kind: `completed` when every trial is final and at least one has a finite val_loss; `interrupted` when trials are left
    to do, or when the record did not reach the bucket in full; `failed` when going on is pointless.
    reason: why it failed; empty otherwise.
    lacking: what the bucket lacks of the record, in words; empty when it lacks nothing.
    """

    kind: Kind
    reason: str = ""
    lacking: str = ""

    @property
    def exit_code(self) -> int:
        """The exit code of `fashion-sweep run`: 0 completed, 130 interrupted, 1 failed."""
        return EXIT_CODES[self.kind]


def outcome_of(run: Run, total: int, abort: str = "", lacking: str = "") -> SweepOutcome:
    """The outcome of a run of `total` trials whose driver has just ended.

    abort: why the recorder gave the sweep up; empty when it did not. lacking: as in `SweepOutcome`.
    """
    if lacking:
        return SweepOutcome("interrupted", lacking=lacking)
    if abort:
        return SweepOutcome("failed", abort)
    if run.unfinished(total):
        return SweepOutcome("interrupted")
    if not any(trial.best() for trial in run.trials.values()):
        command = f"`fashion-sweep show {run.location}`"
        return SweepOutcome("failed", f"no trial has a finite val_loss. {command} tells each one's reason.")
    return SweepOutcome("completed")
