"""A trial's validation predictions: the class probabilities of its best epoch, and the labels beside them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fashion.bucket.address import Address
from fashion.errors import Problem, RunError
from fashion.reading.validation_files import fetched, read_labels, read_probabilities
from fashion.record.run import Run
from fashion.record.trial import Trial
from fashion.record.trial_files import folder_name, predictions_name
from fashion.record.validate import attributes_of


@dataclass(frozen=True, eq=False)
class AttributePredictions:
    """One attribute's predictions for N images.

    classes: the class names, in the order of the model's outputs. probabilities: (N, classes) float32.
    labels: (N,) int64 class indices; None where they are not known.
    """

    name: str
    classes: tuple[str, ...]
    probabilities: NDArray[np.float32]
    labels: NDArray[np.int64] | None

    @property
    def predicted(self) -> NDArray[np.int64]:
        """(N,) the index of the most probable class; of equally probable ones the first."""
        best: NDArray[np.int64] = self.probabilities.argmax(axis=1).astype(np.int64)
        return best


@dataclass(frozen=True, eq=False)
class ValidationPredictions:
    """What a trial's best epoch predicted for the validation images, in the order of the data set's list.

    epoch counts from 1. labels_missing: why the labels are not known; empty when they are.
    """

    trial: int
    epoch: int
    images: tuple[str, ...]
    attributes: tuple[AttributePredictions, ...]
    labels_missing: str = ""

    def __len__(self) -> int:
        return len(self.images)

    def to_table(self) -> pa.Table:
        """One row per image: `image` and for each attribute NAME (the label's class name, null where it is not known),
        NAME/predicted (the most probable class) and NAME/probabilities (float32, in the order of the class names, which
        the column's metadata holds under "classes")."""
        columns: list[pa.Array] = [pa.array(self.images, pa.string())]
        fields = [pa.field("image", pa.string())]
        for each in self.attributes:
            names = np.array(each.classes, dtype=object)
            labels = (
                pa.nulls(len(self), pa.string()) if each.labels is None else pa.array(names[each.labels], pa.string())
            )
            columns += [labels, *predicted_columns(names, each.probabilities)]
            fields += [pa.field(each.name, pa.string()), *predicted_fields(each.name, each.classes)]
        return pa.Table.from_arrays(columns, schema=pa.schema(fields))


def predicted_columns(names: NDArray[Any], probabilities: NDArray[np.float32]) -> list[pa.Array]:
    """The class predicted for each image, and its probabilities. names: the class names; probabilities: (N,
    classes)."""
    flat = pa.array(np.ascontiguousarray(probabilities).reshape(-1), pa.float32())
    return [
        pa.array(names[probabilities.argmax(axis=1)], pa.string()),
        pa.FixedSizeListArray.from_arrays(flat, len(names)),
    ]


def predicted_fields(name: str, classes: tuple[str, ...]) -> list[pa.Field]:
    """The fields of `predicted_columns`."""
    metadata = {"classes": json.dumps(list(classes))}
    return [
        pa.field(f"{name}/predicted", pa.string()),
        pa.field(f"{name}/probabilities", pa.list_(pa.float32(), len(classes)), metadata=metadata),
    ]


def read_predictions(run: Run, trial: Trial, address: Address | None = None) -> ValidationPredictions:
    """The predictions of the trial's best epoch. address: where a run in a bucket is kept; what this machine's copy
    lacks is fetched from there.

    Raises:
        RunError: the trial has no finite val_loss, or a file is missing or damaged.
        StorageError: the bucket can't be read.
    """
    best = trial.best()
    if best is None:
        rule = f"trial {trial.number} has reported no finite val_loss"
        raise RunError(Problem(run.location, rule, fix="`show` tells why it failed"))
    name = f"{folder_name(trial.number)}/{predictions_name(best.epoch)}"
    path = fetched(run, address, [name])[0]
    if not path.is_file():
        fix = "If the sweep was killed, type its command again to go on"
        raise RunError(Problem(f"{run.location}/{name}", "the validation predictions are missing", fix=fix))
    attributes = attributes_of(run.manifest["attributes"])
    images, probabilities = read_probabilities(path, attributes)
    labels, missing = read_labels(run, trial, address, images)
    return ValidationPredictions(
        trial.number,
        best.epoch,
        tuple(images.to_pylist()),
        tuple(
            AttributePredictions(name, classes, values, None if labels is None else labels[head])
            for head, ((name, classes), values) in enumerate(zip(attributes, probabilities, strict=True))
        ),
        missing,
    )
