"""What an epoch is measured by: the validation of its one model, or of each fold's model on the fold that it has not
seen, put together to one validation of all images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fashion.data.layout import split_labels
from fashion.model.metrics import make_meter
from fashion.statistics.influence import influences
from fashion.statistics.outcomes import HeadLabels, outcomes
from fashion.training.feed import TrainingData
from fashion.training.learners.learner import Validation


@dataclass(frozen=True, eq=False)
class EpochValidation:
    """metrics: as a report has them, val_NAME. probabilities: per head (N, classes), in the order of the validation
    images."""

    metrics: dict[str, float]
    probabilities: list[Any]


def validated(found: Sequence[Validation], data: TrainingData) -> EpochValidation:
    """The epoch's validation from that of each of its models.

    With folds the metrics are over the out-of-fold predictions of all N images, whose means are those over folds where
    these have the same size. Besides there are val_loss/fold_K, counted from 1, and val_loss_se.
    """
    if data.folds is None:
        return EpochValidation(_named(found[0].meter.compute(data.names)), found[0].probabilities)
    total = make_meter(data.class_counts, found[0].meter.sums.device, data.multi_label, data.val_complete)
    whole = [np.empty((len(data.folds), classes), np.float32) for classes in data.class_counts]
    metrics: dict[str, float] = {}
    for fold, each in enumerate(found):
        total.restore(total.sums + each.meter.sums)
        metrics[f"val_loss/fold_{fold + 1}"] = each.meter.compute(data.names)["loss"]
        for head, probabilities in zip(whole, each.probabilities, strict=True):
            head[data.folds == fold] = probabilities
    metrics["val_loss_se"] = standard_error(whole, data)
    return EpochValidation({**_named(total.compute(data.names)), **metrics}, whole)


def standard_error(probabilities: Sequence[np.ndarray], data: TrainingData) -> float:
    """Of val_loss over the images that are validated, in nats: the infinitesimal jackknife, which for one head without
    missing labels is the losses' standard deviation over the root of their number. NaN where a probability is."""
    assert data.val.labels is not None, "val has labels"
    if not all(np.isfinite(head).all() for head in probabilities):
        return float("nan")
    pairs = split_labels(data.attributes, data.val.labels)
    heads = [HeadLabels(attribute.name, len(attribute.classes), labels) for attribute, labels in pairs]
    each = influences(outcomes(heads, [probabilities]), "val_loss")[0]
    return float(np.sqrt(np.square(each).sum()))


def _named(metrics: dict[str, float]) -> dict[str, float]:
    return {f"val_{name}": value for name, value in metrics.items()}
