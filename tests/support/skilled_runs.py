"""Recorded runs with validation predictions and labels, without training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fashion.record.run import Run
from fashion.record.trial import EpochReport
from fashion.record.trial_files import predictions_path
from tests.support.recorded import ATTRIBUTES, SPEC

IMAGES = 400
NAMES = [f"img/{index:04d}.jpg" for index in range(IMAGES)]
CLASSES: list[list[str]] = [list(map(str, each["classes"])) for each in ATTRIBUTES]


@dataclass
class Predictions:
    """One head's predictions, as `fashion.reading.predicted.Head` wants them."""

    name: str
    classes: tuple[str, ...]
    probabilities: NDArray[np.float32]
    labels: NDArray[np.int64] | None


def labels_of(seed: int = 0) -> NDArray[np.int64]:
    """(IMAGES, heads) class indices."""
    random = np.random.default_rng(seed)
    return np.stack([random.integers(0, len(classes), IMAGES) for classes in CLASSES], axis=1)


def probabilities_of(labels: NDArray[np.int64], skill: float, seed: int) -> list[NDArray[np.float32]]:
    """(IMAGES, classes) of each head: random logits, and `skill` more for the true class."""
    random = np.random.default_rng(seed)
    found = []
    for head, classes in enumerate(CLASSES):
        logits = random.normal(size=(IMAGES, len(classes)))
        logits[np.arange(IMAGES), labels[:, head]] += skill
        found.append((np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).astype(np.float32))
    return found


def metrics_of(labels: NDArray[np.int64], heads: Sequence[NDArray[np.float32]]) -> dict[str, float]:
    """The metrics as training reports them, straight from their definitions."""
    right = np.stack([head.argmax(1) == labels[:, index] for index, head in enumerate(heads)], axis=1)
    losses = [
        -np.log(head[np.arange(len(labels)), labels[:, index]].astype(float)).mean() for index, head in enumerate(heads)
    ]
    recalls = [
        np.mean([right[labels[:, head] == each, head].mean() for each in np.unique(labels[:, head])])
        for head in range(len(heads))
    ]
    shares = {f"val_accuracy/{each['name']}": float(right[:, i].mean()) for i, each in enumerate(ATTRIBUTES)}
    return {
        "val_loss": float(np.mean(losses)),
        "val_accuracy": float(right.mean()),
        "val_balanced_accuracy": float(np.mean(recalls)),
        "val_exact_match": float(right.all(1).mean()),
        "train_loss": float(np.mean(losses)) / 2,
        **shares,
    }


def predicted_run(
    storage: Path, name: str, skills: Sequence[float], *, seed: int = 0, fingerprint: str = "f",
    spec: Mapping[str, Any] = SPEC, noise: int = 100,
) -> Run:  # fmt: skip
    """A finished run of one trial for each skill, of one epoch each, with labels and predictions. `noise` seeds what
    the models do not share."""
    labels = labels_of(seed)
    counts = [np.bincount(labels[:, head], minlength=len(classes)).tolist() for head, classes in enumerate(CLASSES)]
    manifest = {
        "spec": {**spec, "search": {"trials": len(skills)}},
        "data_fingerprint": fingerprint,
        "attributes": ATTRIBUTES,
        "label_counts": {"train": counts, "val": counts},
    }
    run = Run.create(storage, name, manifest)
    write_labels(run, labels)
    for number, skill in enumerate(skills):
        heads = probabilities_of(labels, skill, noise + number)
        record_predictions(run, number, metrics_of(labels, heads), heads)
    return run


def write_labels(run: Run, labels: NDArray[np.int64]) -> None:
    columns = {str(each["name"]): pa.array(labels[:, head], pa.int32()) for head, each in enumerate(ATTRIBUTES)}
    pq.write_table(pa.table({"image": NAMES, **columns}), run.val_labels_path)


def record_predictions(run: Run, number: int, metrics: dict[str, float], heads: Sequence[NDArray[np.float32]]) -> None:
    train = {"epochs": 1, "lr": 0.01 * (number + 1)}
    run.record_trial(number, {"data": {"root": "d"}, "model": {"backbone": "tiny"}, "train": train})
    run.record_attempt(number)
    run.record_slot(number, number % 2, "node-a")
    folder = run.trial_dir(number)
    folder.mkdir(parents=True)
    columns = {
        str(each["name"]): pa.array(head.tolist(), pa.list_(pa.float32()))
        for each, head in zip(ATTRIBUTES, heads, strict=True)
    }
    pq.write_table(pa.table({"image": NAMES, **columns}), predictions_path(folder, 1))
    report = EpochReport(number, 1, 1, 1, metrics, 2.0, "2026-01-01T00:00:00.000+00:00")
    run.record_report(report, "continue")
    run.record_end(number, "completed")
    assert math.isfinite(metrics["val_loss"])
