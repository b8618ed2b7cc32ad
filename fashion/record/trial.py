"""What is recorded of a trial: its epochs' reports, the scheduler's decisions and its end."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self, get_args

from fashion.record.validate import REPORT, check
from fashion.schedulers.base import Decision

End = Literal["completed", "stopped", "failed"]
Status = Literal["running", "completed", "stopped", "failed", "interrupted"]


def metrics_to_json(metrics: Mapping[str, float]) -> dict[str, float | str]:
    """Metrics as valid JSON: NaN and infinities, which JSON lacks, become the strings "nan", "inf" and "-inf"."""
    return {name: value if math.isfinite(value) else str(float(value)) for name, value in metrics.items()}


def metrics_from_json(metrics: Mapping[str, float | str]) -> dict[str, float]:
    # One string for a name in all reports: of a large record the names would be a third.
    return {sys.intern(name): float(value) for name, value in metrics.items()}


@dataclass(frozen=True)
class EpochReport:
    """What one epoch of one trial came to. `epoch` counts from 1; `seconds` is the epoch's wall time; `setting` says how
    it was computed (precision, memory layout)."""

    trial: int
    attempt: int
    epoch: int
    epochs: int
    metrics: dict[str, float]
    seconds: float
    time: str
    setting: str = ""

    def __post_init__(self) -> None:
        if not 1 <= self.epoch <= self.epochs:
            raise ValueError(f"epoch must be in 1..{self.epochs}, got {self.epoch}")

    @property
    def progress(self) -> float:
        """The fraction of the trial's own schedule that is done, in (0, 1]."""
        return self.epoch / self.epochs

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "metrics": metrics_to_json(self.metrics)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Raises KeyError, TypeError or ValueError for what is no report: it may be read from anybody's file."""
        check(value, REPORT, REPORT.keys() - {"setting"})
        return cls(**{**value, "metrics": metrics_from_json(value["metrics"])})


@dataclass(frozen=True)
class SlotUse:
    """Where an attempt ran, from `time` (ISO 8601) on. slot: the number of the warm process or worker group, from 0 in the
    order in which one command first used them. node: the name of the machine."""

    attempt: int
    slot: int
    node: str
    time: str


@dataclass
class Trial:
    """One configuration and all that is recorded of it. `live` says that a driver was alive when last looked; `left_out`
    counts the reports that an excerpt of the run leaves out, of `left_out_seconds`. `origin` names the run and trial that
    its reports and files were taken from, where it was not trained here. `notes` tell what happened to it on the way; `slots`
    where its attempts ran (none in runs of formats 1 and 2)."""

    number: int
    config: dict[str, Any]
    reports: list[EpochReport] = field(default_factory=list)
    decisions: dict[int, Decision] = field(default_factory=dict)
    attempt: int = 0
    ended: End | None = None
    reason: str = ""
    live: bool = True
    left_out: int = 0
    left_out_seconds: float = 0.0
    origin: tuple[str, int] | None = None
    notes: list[str] = field(default_factory=list)
    slots: list[SlotUse] = field(default_factory=list)

    @property
    def status(self) -> Status:
        """The recorded end; where a killed driver could not write it, what the last report amounts to."""
        if self.ended:
            return self.ended
        if self.reports:
            last = self.reports[-1]
            if self.diverged:
                return "failed"
            if last.epoch == last.epochs:
                return "completed"
            if self.decisions[last.epoch] == "stop":
                return "stopped"
        return "running" if self.live else "interrupted"

    @property
    def diverged(self) -> bool:
        """Whether the last report's val_loss is NaN or infinite."""
        return bool(self.reports) and not math.isfinite(self.reports[-1].metrics.get("val_loss", 0.0))

    @property
    def final(self) -> bool:
        """Whether nothing is left to do: completed, stopped or failed."""
        return self.status in get_args(End)

    def best(self) -> EpochReport | None:
        """The report with the lowest finite val_loss; of equal ones the earliest, whose weights are kept."""
        finite = [report for report in self.reports if math.isfinite(report.metrics.get("val_loss", math.nan))]
        return min(finite, key=lambda report: report.metrics["val_loss"], default=None)


def placeless(config: Any) -> Any:
    """A configuration without where the data set lies, which two trials that are the same may differ in."""
    data = config.get("data") if isinstance(config, Mapping) else None
    if not isinstance(data, Mapping):
        return config  # a stranger's
    return {**config, "data": {name: value for name, value in data.items() if name != "root"}}
