"""What the record holds of a trial: its epochs' reports, the scheduler's decisions and its end."""

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
    # All reports share one string per name. Otherwise names would take a third of a large record's memory.
    return {sys.intern(name): float(value) for name, value in metrics.items()}


@dataclass(frozen=True)
class EpochReport:
    """The result of one epoch of one trial.

    `epoch` counts from 1 to `epochs`. `seconds` is the epoch's wall time, `time` when it ended. `setting` says how it
    was computed (precision, memory layout).
    """

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
        """The share of the trial's own schedule that is done, in (0, 1]."""
        return self.epoch / self.epochs

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "metrics": metrics_to_json(self.metrics)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Raises KeyError, TypeError or ValueError for anything but a report, since a stranger may have written it."""
        check(value, REPORT, REPORT.keys() - {"setting"})
        return cls(**{**value, "metrics": metrics_from_json(value["metrics"])})


@dataclass(frozen=True)
class SlotUse:
    """Where an attempt ran, from `time` (ISO 8601) on. slot: the number of the warm process or worker group, from 0 in
    the order in which one command first used them. node: the name of the machine."""

    attempt: int
    slot: int
    node: str
    time: str


@dataclass
class Trial:
    """One configuration and all that is recorded of it.

    `live` says whether a driver was alive when last looked. `left_out` counts the reports that an excerpt of the run
    leaves out, which took `left_out_seconds` in all. `origin` names the run and trial from which reports and files were
    taken, for a trial that was not trained here. `notes` say what happened to it on the way, `slots` where its attempts
    ran (none in runs of formats 1 and 2). `versions` holds, for the attempts that ran under other versions than the
    manifest names, what was different: "torch" -> "2.13.0", "" for a package that had gone (attempt 0: the trial was
    taken from another run).
    """

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
    versions: dict[int, dict[str, str]] = field(default_factory=dict)

    def took_place(self, attempt: int, changed: Mapping[str, str]) -> None:
        """An attempt, or the taking of the trial from another run (0), was under versions with these changes."""
        if attempt == 0:
            self.versions.clear()  # what was trained here before counts no more
        if changed:
            self.versions[attempt] = dict(changed)

    def each_versions(self) -> list[dict[str, str]]:
        """What was different from the manifest's versions, each once, over all attempts that the trial is made of."""
        attempts = range(1, self.attempt + 1) if self.origin is None and self.attempt else [0]
        found: list[dict[str, str]] = []
        for attempt in attempts:
            changed = self.versions.get(attempt, {})
            if changed not in found:
                found.append(changed)
        return found

    @property
    def status(self) -> Status:
        """The recorded end. If a killed driver did not get to write it, the last report decides."""
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
        """Whether nothing is left to do, because the trial has completed, was stopped or has failed."""
        return self.status in get_args(End)

    def best(self) -> EpochReport | None:
        """The report with the lowest finite val_loss. Of equal ones it is the earliest, whose weights are kept. Of a
        trial that was trained on the validation images it is the last one."""
        if trained_on_val(self.config):
            return self.reports[-1] if self.reports and not self.diverged else None
        finite = [report for report in self.reports if math.isfinite(report.metrics.get("val_loss", math.nan))]
        return min(finite, key=lambda report: report.metrics["val_loss"], default=None)


TRAINED_ON_VAL = "it was trained on the validation images, too, so that they score it no more"


def trained_on_val(config: Any) -> bool:
    """Whether a recorded configuration trains on the validation images, too, so that no score of them counts."""
    train = config.get("train") if isinstance(config, Mapping) else None
    return isinstance(train, Mapping) and train.get("fit_on", "train") != "train"


def placeless(config: Any) -> Any:
    """A configuration without the data set's location, in which two otherwise equal trials may differ."""
    data = config.get("data") if isinstance(config, Mapping) else None
    if not isinstance(data, Mapping):
        return config  # a stranger may have written it
    return {**config, "data": {name: value for name, value in data.items() if name != "root"}}
