"""The validation metrics by name: which way each gets better, and which of them the tables of trials show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fashion.schedulers.base import Mode


@dataclass(frozen=True)
class Metric:
    """mode: whether less or more is better. column: the heading under which tables of trials show the metric's value at
    the trial's best epoch, as a percentage; empty for a metric without a column."""

    mode: Mode
    column: str = ""


# What a scheduler may rank trials by. val_loss has columns of its own in every table: it decides the winner.
METRICS: Mapping[str, Metric] = {
    "val_loss": Metric("min"),
    "val_loss_report": Metric("min"),
    "val_accuracy": Metric("max", "val_acc"),
    "val_balanced_accuracy": Metric("max"),
    "val_exact_match": Metric("max"),
}
