"""Which epoch of which trial is the best, by how much, and on which attributes; from the record alone."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fashion.errors import Problem, RunError
from fashion.record.run import Run
from fashion.record.validate import known_counts


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

    `images` are those whose label is known, `correct` those of them that are right. `majority_accuracy` is the accuracy
    on them of always predicting the most frequent training class. For a multi-label attribute `images` and `correct`
    count labels, one for each image and class; the baseline predicts for each class what most training images have, and
    `majority_class` names the classes that it says an image has. `majority`: for each class whether it says it.
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
    majority: tuple[bool, ...]
    multi_label: bool = False

    @property
    def gain(self) -> float:
        return self.accuracy - self.majority_accuracy


@dataclass(frozen=True)
class Lead:
    """How far the winner is ahead of the runner-up: a difference is positive where the winner's value is the better
    one. It may be noise."""

    runner_up: Ranked
    val_loss: float
    val_accuracy: float


def ranking(run: Run, most: int | None = None) -> list[Ranked]:
    """Every trial with a finite val_loss, at the epoch with its lowest one, the best trial first; at most `most`.

    The earliest of equal epochs counts, and the lower number of equal trials comes first. Trials that failed later
    count.
    """
    reports = (report for trial in run.trials.values() if (report := trial.best()) is not None)
    order = heapq.nsmallest(
        len(run.trials) if most is None else most, reports, key=lambda each: (each.metrics["val_loss"], each.trial)
    )
    return [trial_at(run, report.trial) for report in order]


def best(run: Run) -> Ranked:
    """The winner. Raises RunError where no trial has reported a finite val_loss."""
    ranked = ranking(run, 1)
    if not ranked:
        rule = f"no trial has reported a finite val_loss ({len(run.trials)} trials recorded)"
        fix = "Let the sweep finish an epoch. `fashion-sweep show` says why trials have failed"
        raise RunError(Problem(str(run.path), rule, fix=fix))
    return ranked[0]


def trial_at(run: Run, number: int, epoch: int | None = None) -> Ranked:
    """A trial at its best epoch, or at the given one. Raises RunError where the record has no such finite val_loss."""
    trial = run.trials.get(number)
    if trial is None:
        recorded = f"Recorded: {min(run.trials)} to {max(run.trials)}" if run.trials else "None is recorded yet"
        raise RunError(Problem(run.location, "holds no such trial", str(number), recorded))
    found = trial.best() if epoch is None else next((each for each in trial.reports if each.epoch == epoch), None)
    if found is None or not math.isfinite(found.metrics.get("val_loss", math.nan)):
        done = trial.reports[-1].epoch if trial.reports else 0
        what = "a finite val_loss" if epoch is None else f"a finite val_loss at epoch {epoch}"
        raise RunError(Problem(f"trial {number}", f"must have reported {what}", f"{done} epochs, {trial.status}"))
    return Ranked(number, found.epoch, found.metrics["val_loss"], dict(found.metrics), trial.config)


def lead(run: Run) -> Lead | None:
    """The winner's lead over the runner-up; None where fewer than two trials can be ranked."""
    ranked = ranking(run, 2)
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
    counts, known = manifest["label_counts"], {split: known_counts(manifest, split) for split in ("train", "val")}
    for head, attribute in enumerate(manifest["attributes"]):
        name, classes = attribute["name"], tuple(attribute["classes"])
        train, val = counts["train"][head], counts["val"][head]
        multi = bool(attribute.get("multi_label", False))
        accuracy, images = metrics.get(f"val_accuracy/{name}", math.nan), sum(known["val"][head])
        correct = round(accuracy * images) if math.isfinite(accuracy) else 0
        if multi:
            held = [2 * count > labelled for count, labelled in zip(train, known["train"][head], strict=True)]
            each = zip(held, val, known["val"][head], strict=True)
            hits = sum(count if holds else labelled - count for holds, count, labelled in each)
            majority_class = "|".join(name for name, holds in zip(classes, held, strict=True) if holds)
        else:
            majority = max(range(len(train)), key=lambda index: train[index])  # the first of equally frequent ones
            held = [index == majority for index in range(len(train))]
            hits, majority_class = val[majority], classes[majority]
        rows.append(
            AttributeRow(
                name,
                classes,
                accuracy,
                correct,
                images,
                majority_class,
                hits / images,
                tuple(train),
                tuple(val),
                tuple(held),
                multi,
            )
        )
    return rows


def majority_accuracy(manifest: Mapping[str, Any]) -> float:
    """Overall validation accuracy of always predicting each attribute's most frequent training class."""
    rows = attribute_table(manifest, {})
    images = sum(row.images for row in rows)
    return sum(row.majority_accuracy * row.images for row in rows) / images if images else math.nan
