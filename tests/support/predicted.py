"""Runs with validation predictions and labels that no training made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fashion.record.run import Run
from fashion.record.trial import EpochReport
from fashion.record.trial_files import predictions_path
from fashion.statistics.outcomes import HeadLabels, outcomes
from fashion.statistics.resampling import weighted
from tests.support.recorded import SPEC

CLASSES = {"sleeve": ["long", "short", "none"], "fit": ["tight", "loose"]}
Probabilities = list[NDArray[np.float32]]


def drawn(trials: int, images: int = 120, skill: float = 1.5) -> tuple[list[NDArray[np.int64]], list[Probabilities]]:
    """Labels by attribute, and by trial and attribute probabilities that are a little better than chance."""
    random = np.random.default_rng(trials)
    labels = [random.integers(0, len(classes), images) for classes in CLASSES.values()]
    shared = [random.standard_normal((images, len(classes))) for classes in CLASSES.values()]
    models = []
    for _ in range(trials):
        heads = []
        for index, classes in enumerate(CLASSES.values()):
            logits = shared[index] + 0.5 * random.standard_normal((images, len(classes)))
            logits[np.arange(images), labels[index]] += skill
            exp = np.exp(logits - logits.max(axis=1, keepdims=True))
            heads.append((exp / exp.sum(axis=1, keepdims=True)).astype(np.float32))
        models.append(heads)
    return labels, models


def predicted_run(
    folder: Path, labels: Sequence[Any], models: Sequence[Probabilities], parameters: Sequence[int] = ()
) -> Run:
    """The run `lr` in `folder` of one trial for each of the models, whose metrics its one report has. labels: of each
    attribute one for each image, None where it is missing. parameters: of each trial's model; by default not recorded.
    """
    images = [f"img/{index}.jpg" for index in range(len(models[0][0]))]
    known = [np.array([-1 if each is None else each for each in column], np.int64) for column in labels]
    heads = [
        HeadLabels(name, len(classes), column) for (name, classes), column in zip(CLASSES.items(), known, strict=True)
    ]
    counts = [np.bincount(head.labels[head.known], minlength=head.classes).tolist() for head in heads]
    manifest = {
        "spec": {**SPEC, "search": {"trials": len(models)}},
        "data_fingerprint": "f",
        "attributes": [{"name": name, "classes": classes} for name, classes in CLASSES.items()],
        "label_counts": {"train": counts, "val": counts},
        "models": [
            {"backbone": f"tiny{number}", "weights": "none", "parameters": count}
            for number, count in enumerate(parameters)
        ],
    }
    run = Run.create(folder, "lr", manifest)
    columns = {name: pa.array(values, pa.int32()) for name, values in zip(CLASSES, labels, strict=True)}
    pq.write_table(pa.table({"image": images, **columns}), run.val_labels_path)
    for number, model in enumerate(models):
        measured = weighted(outcomes(heads, [model]), np.ones((len(images), 1)))
        config = {
            "data": {"root": "d"},
            "model": {"backbone": f"tiny{number}", "weights": "none"},
            "train": {"epochs": 1, "lr": 0.01 * (number + 1)},
        }
        run.record_trial(number, config)
        run.record_attempt(number)
        metrics = {name: float(value[0, 0]) for name, value in measured.items()}
        report = EpochReport(number, 1, 1, 1, metrics, 1.0 + number, "2026-01-01T00:00:00.000+00:00")
        run.record_report(report, "continue")
        run.record_end(number, "completed")
        write_predictions(run, number, images, model)
    run.close()
    return run


def write_predictions(run: Run, number: int, images: list[str], model: Probabilities) -> None:
    path = predictions_path(run.trial_dir(number), 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    lists = {name: pa.array(list(head), pa.list_(pa.float32())) for name, head in zip(CLASSES, model, strict=True)}
    pq.write_table(pa.table({"image": images, **lists}), path)
