"""The parts of a spec that are not sampled: how to search, when to stop a trial, what a trial may use."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from fashion.config import Frozen
from fashion.schedulers.base import LEAST_REDUCTION

Metric = Literal["val_loss", "val_loss_report", "val_accuracy", "val_balanced_accuracy", "val_exact_match"]


class SearchConfig(Frozen):
    method: Literal["random", "grid", "optuna"] = Field(
        "random", description="random: independent samples, grids crossed; grid: every combination; optuna: TPE"
    )
    trials: int = Field(
        10, ge=1, le=1_000_000, description="method grid: at most this many, every combination by default"
    )
    seed: int = Field(0, ge=0, lt=2**31, description="the same spec and seed give the same trials")


class SchedulerConfig(Frozen):
    """Early stopping. ASHA: Li et al., "A System for Massively Parallel Hyperparameter Tuning" (2018)."""

    name: Literal["asha", "fifo", "median", "hyperband"] = Field("asha", description="fifo stops no trial early")
    metric: Metric = Field("val_loss", description="what decides who goes on; the winner is always the lowest val_loss")
    compare: Literal["fraction", "epoch"] = Field(
        "fraction", description="compare trials at the same fraction of their own schedule, or at the same epoch"
    )
    grace: float = Field(
        0.1, gt=0.0, description="no trial stops before this fraction of its epochs, or before this epoch (default 1)"
    )
    reduction: float = Field(3.0, ge=LEAST_REDUCTION, le=100.0, description="of this many trials at a rung one goes on")
    brackets: int = Field(1, ge=1, le=20, description="rung sets, each starting later; hyperband: 3 by default")

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, values: Any) -> Any:
        if isinstance(values, dict):
            return {
                "grace": 1.0 if values.get("compare") == "epoch" else 0.1,
                "brackets": 3 if values.get("name") == "hyperband" else 1,
                **values,
            }
        return values

    @model_validator(mode="after")
    def _grace_fits(self) -> Self:
        if self.compare == "fraction" and self.grace > 1:
            raise ValueError("grace must be a fraction from 0 to 1 of a trial's epochs, or compare must be epoch")
        if self.compare == "epoch" and (self.grace < 1 or self.grace != int(self.grace)):
            raise ValueError("grace must be a whole number of epochs, 1 or more, when compare is epoch")
        return self

    @property
    def mode(self) -> Literal["min", "max"]:
        """Which way the metric gets better."""
        return "min" if "loss" in self.metric else "max"


class ResourcesConfig(Frozen):
    workers: int = Field(1, ge=1, le=1024, description="data-parallel workers of one trial (DDP above 1)")
    gpus_per_worker: Literal["auto"] | Annotated[float, Field(ge=0.0, le=64.0)] = Field(
        "auto", description="may be a fraction; auto: 1 where the cluster has GPUs, else 0"
    )
    cpus_per_worker: int = Field(
        1, ge=1, le=1024, description="compute threads of a worker; on CPU one each is steadier than more"
    )
    concurrent_trials: Literal["auto"] | Annotated[int, Field(ge=1, le=10_000)] = Field(
        "auto", description="auto: as many as the cluster holds, or may grow to hold"
    )
    max_failures: int = Field(2, ge=0, le=100, description="times that a trial is started again after its process died")
    max_preemptions: int = Field(
        100, ge=0, le=10_000, description="times that it is after its machine was preempted, drained or lost"
    )
    epoch_timeout: float | None = Field(
        None,
        gt=0.0,
        le=1e7,
        description="seconds without a report after which a trial's process is taken to hang, is killed and counts as died; "
        "the first epoch's count from the trial's start. null: none",
    )
