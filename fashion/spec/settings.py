"""The sections of a spec that are not sampled: how to search, when to stop a trial, what a trial may use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from fashion.config.base import Frozen
from fashion.schedulers.base import LEAST_REDUCTION, MOST_BRACKETS, MOST_REDUCTION, Compare, Mode
from fashion.schedulers.metrics import METRICS
from fashion.schedulers.registry import SCHEDULERS, SchedulerRow
from fashion.spec.search_methods import SEARCH_METHODS, SearchMethod
from fashion.spec.space import Choice

# The allowed words are the tables' own names. A type checker can't read them from there; pydantic can.
if TYPE_CHECKING:
    MethodName = str
    SchedulerName = str
    MetricName = str
else:
    MethodName = Literal[*SEARCH_METHODS]
    SchedulerName = Literal[*SCHEDULERS]
    MetricName = Literal[*METRICS]


def _about(rows: Mapping[str, SearchMethod] | Mapping[str, SchedulerRow]) -> str:
    return "; ".join(f"{name}: {row.about}" for name, row in rows.items())


class SearchConfig(Frozen):
    method: MethodName = Field("random", description=_about(SEARCH_METHODS))
    trials: int = Field(
        10,
        ge=1,
        le=1_000_000,
        description="number of trials; method grid: at most this many, by default every combination",
    )
    seed: int = Field(0, ge=0, lt=2**31, description="the same spec and seed give the same trials")

    @property
    def crossed(self) -> tuple[type[Choice], ...]:
        """The distributions whose values the method combines in every way."""
        return SEARCH_METHODS[self.method].crossed

    @property
    def exhaustive(self) -> bool:
        """Whether the method takes every combination of all values, and nothing else."""
        return Choice in self.crossed

    @property
    def adaptive(self) -> bool:
        """Whether the method suggests values from the results so far."""
        return SEARCH_METHODS[self.method].adaptive


class SchedulerConfig(Frozen):
    """Early stopping. ASHA: Li et al., "A System for Massively Parallel Hyperparameter Tuning" (2018)."""

    name: SchedulerName = Field("asha", description=_about(SCHEDULERS))
    metric: MetricName = Field(
        "val_loss",
        description="metric by which the scheduler compares trials; the winner always has the lowest val_loss",
    )
    compare: Compare = Field(
        "fraction", description="compare trials at the same fraction of their own schedules, or at the same epoch"
    )
    grace: float = Field(
        0.1,
        gt=0.0,
        description="no trial is stopped before this fraction of its epochs; with compare: epoch, before this epoch "
        "(then 1 by default)",
    )
    reduction: float = Field(
        3.0, ge=LEAST_REDUCTION, le=MOST_REDUCTION, description="one in this many trials goes on from a rung"
    )
    brackets: int = Field(
        1,
        ge=1,
        le=MOST_BRACKETS,
        description="sets of rungs, each starting later than the last; hyperband: 3 by default",
    )

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, values: Any) -> Any:
        if isinstance(values, dict):
            row = SCHEDULERS.get(values.get("name", "asha"))
            grace = 1.0 if values.get("compare") == "epoch" else 0.1
            return {"grace": grace, **({"brackets": row.brackets} if row else {}), **values}
        return values

    @model_validator(mode="after")
    def _grace_fits(self) -> Self:
        if self.compare == "fraction" and self.grace > 1:
            raise ValueError("grace must be a fraction from 0 to 1 of a trial's epochs, or compare must be epoch")
        if self.compare == "epoch" and (self.grace < 1 or self.grace != int(self.grace)):
            raise ValueError("grace must be a whole number of epochs, 1 or more, when compare is epoch")
        return self

    @property
    def mode(self) -> Mode:
        """Whether less or more of the metric is better."""
        return METRICS[self.metric].mode


class ResourcesConfig(Frozen):
    workers: int = Field(1, ge=1, le=1024, description="data-parallel workers of one trial (DDP if more than 1)")
    gpus_per_worker: Literal["auto"] | Annotated[float, Field(ge=0.0, le=64.0)] = Field(
        "auto", description="GPUs of a worker, which may be a fraction; auto: 1 where the cluster has GPUs, else 0"
    )
    cpus_per_worker: int = Field(
        1,
        ge=1,
        le=1024,
        description="compute threads of a worker; on CPUs, several workers with one thread each are steadier than one "
        "worker with several threads",
    )
    concurrent_trials: Literal["auto"] | Annotated[int, Field(ge=1, le=10_000)] = Field(
        "auto", description="trials that run at the same time; auto: as many as the cluster holds, or may grow to hold"
    )
    max_failures: int = Field(
        2, ge=0, le=100, description="how often a trial is started again after its process has died"
    )
    max_preemptions: int = Field(
        100,
        ge=0,
        le=10_000,
        description="how often a trial is started again after its machine was preempted, drained or lost",
    )
    epoch_timeout: float | None = Field(
        None,
        gt=0.0,
        le=1e7,
        description="seconds without a report after which a trial's process is killed as hung, which counts as a "
        "failure; for the first epoch they count from the trial's start. null: no limit",
    )
    maps_gb: float = Field(
        20.0,
        gt=0.0,
        le=1e6,
        description="most that the maps of train.mode: tail may take in the cache folder, in GB, for all trials of the "
        "sweep; a sweep that needs more is refused before any are computed",
    )
    elastic: bool = Field(
        False,
        description="when no trial is left to begin, those that still run on CPUs, each in one worker, take the cores "
        "that have become idle; their numbers then depend on how many threads add them up, which each report's setting "
        "says",
    )

    @model_validator(mode="after")
    def _one_process(self) -> Self:
        if self.elastic and self.workers > 1:
            raise ValueError(f"elastic ({self.elastic}) must be false with workers ({self.workers}) above 1")
        return self
