"""Which epoch of which trial is the best, by how much, and on which attributes; from the record alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fashion.errors import Problem, RunError
from fashion.record.run import Run


@dataclass(frozen=True)
class Ranked:
    """One trial at its best epoch. `val_loss` is finite, `metrics` are that epoch's, `config` is as recorded."""

    trial: int
    epoch: int
    val_loss: float
    metrics: dict[str, float]
    config: dict[str, Any]


@dataclass(frozen=True)
class AttributeRow:
    """One attribute's validation result. Shares are in [0, 1]; counts are images of each class, in the classes' order.

    `majority_accuracy` is the accuracy on the validation images of always predicting the most frequent training class.
    """

    name: str
    classes: tuple[str, ...]
    accuracy: float
    correct: int
    images: int
    majority_class: str
    majority_accuracy: float
    train_counts: tuple[int, ...]
    val_counts: tuple[int, ...]

    @property
    def gain(self) -> float:
        return self.accuracy - self.majority_accuracy


@dataclass(frozen=True)
class Lead:
    """How far the winner is ahead of the runner-up. Both differences are positive where the winner is better."""

    runner_up: Ranked
    val_loss: float
    val_accuracy: float


def ranking(run: Run) -> list[Ranked]:
    """Every trial with a finite val_loss, at the epoch with its lowest one, the best trial first.

    The earliest of equal epochs counts, and the lower number of equal trials comes first. Trials that failed later
    count.
    """
    ranked = [
        Ranked(trial.number, report.epoch, report.metrics["val_loss"], dict(report.metrics), trial.config)
        for trial in run.trials.values()
        if (report := trial.best()) is not None
    ]
    return sorted(ranked, key=lambda entry: (entry.val_loss, entry.trial))


def best(run: Run) -> Ranked:
    """The winner. Raises RunError where no trial has reported a finite val_loss."""
    ranked = ranking(run)
    if not ranked:
        rule = f"no trial has reported a finite val_loss ({len(run.trials)} trials recorded)"
        fix = "Let the sweep finish an epoch. `fashion-sweep show` says why trials have failed"
        raise RunError(Problem(str(run.path), rule, fix=fix))
    return ranked[0]


def lead(run: Run) -> Lead | None:
    """The winner's lead over the runner-up; None where fewer than two trials can be ranked."""
    ranked = ranking(run)
    if len(ranked) < 2:
        return None
    first, second = ranked[:2]
    ahead = first.metrics.get("val_accuracy", math.nan) - second.metrics.get("val_accuracy", math.nan)
    return Lead(second, second.val_loss - first.val_loss, ahead)


def attribute_table(manifest: Mapping[str, Any], metrics: Mapping[str, float]) -> list[AttributeRow]:
    """One row per attribute, from the metrics val_accuracy/NAME and the label counts in the run's manifest."""
    rows: list[AttributeRow] = []
    if not manifest["attributes"]:
        return rows
    counts = manifest["label_counts"]
    for attribute, train, val in zip(manifest["attributes"], counts["train"], counts["val"], strict=True):
        name, classes = attribute["name"], tuple(attribute["classes"])
        accuracy, images = metrics.get(f"val_accuracy/{name}", math.nan), sum(val)
        majority = max(range(len(train)), key=lambda index: train[index])  # the first of equally frequent ones
        correct = round(accuracy * images) if math.isfinite(accuracy) else 0
        rows.append(
            AttributeRow(
                name,
                classes,
                accuracy,
                correct,
                images,
                classes[majority],
                val[majority] / images,
                tuple(train),
                tuple(val),
            )
        )
    return rows


def majority_accuracy(manifest: Mapping[str, Any]) -> float:
    """Overall validation accuracy of always predicting each attribute's most frequent training class."""
    rows = attribute_table(manifest, {})
    images = sum(row.images for row in rows)
    return sum(row.majority_accuracy * row.images for row in rows) / images if images else math.nan
