"""A trial's validation predictions: the class probabilities of its best epoch, and the labels beside them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fashion.bucket.address import Address
from fashion.errors import Problem, RunError
from fashion.reading.validation_files import fetched, read_labels, read_probabilities
from fashion.record.run import Run
from fashion.record.trial import TRAINED_ON_VAL, Trial, trained_on_val
from fashion.record.trial_files import folder_name, predictions_name
from fashion.record.validate import MULTI_LABEL, attributes_of, multi_label_of
from fashion.statistics.label_scores import average_precision, f1


@dataclass(frozen=True, eq=False)
class AttributePredictions:
    """One attribute's predictions for N images.

    classes: the class names, in the order of the model's outputs. probabilities: (N, classes) float32; each row of a
    single-label attribute sums to 1. labels: (N,) int64 class indices, for a multi-label attribute (N, classes) of 0
    and 1; -1 where a label is missing; None where the record has none.
    """

    name: str
    classes: tuple[str, ...]
    probabilities: NDArray[np.float32]
    labels: NDArray[np.int64] | None
    multi_label: bool = False

    @property
    def predicted(self) -> NDArray[np.int64]:
        """(N,) the index of the most probable class; of equally probable ones the first. For a multi-label attribute
        (N, classes), 1 where the probability is above 0.5."""
        if self.multi_label:
            return (self.probabilities > 0.5).astype(np.int64)
        best: NDArray[np.int64] = self.probabilities.argmax(axis=1).astype(np.int64)
        return best

    def average_precision(self) -> NDArray[np.float64]:
        """(classes,) the average precision of each class against all others, over the images whose label is known, as
        scikit-learn's `average_precision_score`; 0 for a class that no image has. Raises ValueError without labels."""
        return np.array([average_precision(*each, _once(each[0]))[0] for each in self._by_class(self.probabilities)])

    def f1(self) -> NDArray[np.float64]:
        """(classes,) the F1 score of each class's decisions (`predicted`), over the images whose label is known, as
        scikit-learn's `f1_score`; 0 for a class that no image has. Raises ValueError without labels."""
        decided = self.predicted
        if not self.multi_label:
            decided = (decided[:, None] == np.arange(len(self.classes))).astype(np.int64)
        return np.array([f1(*each, _once(each[0]))[0] for each in self._by_class(decided.astype(bool))])

    def _by_class(self, scores: NDArray[Any]) -> Iterator[tuple[NDArray[np.bool_], NDArray[Any]]]:
        """For each class, of the images whose label is known, whether they have it, and their scores."""
        if self.labels is None:
            raise ValueError(f"{self.name} has no labels")
        for index in range(len(self.classes)):
            labels = self.labels[:, index] if self.multi_label else self.labels
            known = labels >= 0
            yield labels[known] == (1 if self.multi_label else index), scores[known, index]


def _once(images: NDArray[Any]) -> NDArray[np.float64]:
    """The weight of each image, (n, 1): as they are."""
    return np.ones((len(images), 1))


@dataclass(frozen=True, eq=False)
class ValidationPredictions:
    """What a trial's best epoch predicted for the validation images, in the order of the data set's list.

    epoch counts from 1. labels_missing: why the record has no labels; empty when it has them, be some missing or not.
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
        the column's metadata holds under "classes").

        For a multi-label attribute NAME is a list of the classes that the image is known to have, null where none of
        its labels is known, NAME/predicted a list of those whose probability is above 0.5, and the metadata of
        NAME/probabilities says "multi_label": "true"."""
        columns: list[pa.Array] = [pa.array(self.images, pa.string())]
        fields = [pa.field("image", pa.string())]
        for each in self.attributes:
            names = np.array(each.classes, dtype=object)
            kind = pa.list_(pa.string()) if each.multi_label else pa.string()
            labels = pa.nulls(len(self), kind) if each.labels is None else _named(names, each.labels, kind)
            columns += [labels, *predicted_columns(names, each.probabilities, each.multi_label)]
            fields += [pa.field(each.name, kind), *predicted_fields(each.name, each.classes, each.multi_label)]
        return pa.Table.from_arrays(columns, schema=pa.schema(fields))


def _named(names: NDArray[Any], labels: NDArray[np.int64], kind: pa.DataType) -> pa.Array:
    """The names of labels, (N,) indices or (N, classes) of 0 and 1; null where none is known."""
    if labels.ndim == 1:
        return pa.array(names[labels], kind, mask=labels < 0)
    return pa.array([None if (row < 0).all() else list(names[row == 1]) for row in labels], kind)


def predicted_columns(
    names: NDArray[Any], probabilities: NDArray[np.float32], multi_label: bool = False
) -> list[pa.Array]:
    """The class predicted for each image, or a list of those that are above 0.5, and its probabilities. names: the
    class names; probabilities: (N, classes)."""
    flat = pa.array(np.ascontiguousarray(probabilities).reshape(-1), pa.float32())
    if multi_label:
        decided = _named(names, (probabilities > 0.5).astype(np.int64), pa.list_(pa.string()))
    else:
        decided = pa.array(names[probabilities.argmax(axis=1)], pa.string())
    return [decided, pa.FixedSizeListArray.from_arrays(flat, len(names))]


def predicted_fields(name: str, classes: tuple[str, ...], multi_label: bool = False) -> list[pa.Field]:
    """The fields of `predicted_columns`."""
    metadata = {"classes": json.dumps(list(classes)), **(MULTI_LABEL if multi_label else {})}
    return [
        pa.field(f"{name}/predicted", pa.list_(pa.string()) if multi_label else pa.string()),
        pa.field(f"{name}/probabilities", pa.list_(pa.float32(), len(classes)), metadata=metadata),
    ]


def read_predictions(run: Run, trial: Trial, address: Address | None = None) -> ValidationPredictions:
    """The predictions of the trial's best epoch. address: where a run in a bucket is kept; what this machine's copy
    lacks is fetched from there.

    Raises:
        RunError: the trial has no finite val_loss or was trained on these images, too, or a file is missing or damaged.
        StorageError: the bucket can't be read.
    """
    best = trial.best()
    if best is None:
        rule = f"trial {trial.number} has reported no finite val_loss"
        raise RunError(Problem(run.location, rule, fix="`show` tells why it failed"))
    if trained_on_val(trial.config):
        raise RunError(Problem(run.location, f"trial {trial.number} has no validation score", TRAINED_ON_VAL))
    name = f"{folder_name(trial.number)}/{predictions_name(best.epoch)}"
    path = fetched(run, address, [name])[0]
    if not path.is_file():
        fix = "If the sweep was killed, type its command again to go on"
        raise RunError(Problem(f"{run.location}/{name}", "the validation predictions are missing", fix=fix))
    attributes, multi = attributes_of(run.manifest["attributes"]), multi_label_of(run.manifest["attributes"])
    images, probabilities = read_probabilities(path, attributes)
    labels, missing = read_labels(run, trial, address, images)
    return ValidationPredictions(
        trial.number,
        best.epoch,
        tuple(images.to_pylist()),
        tuple(
            AttributePredictions(name, classes, probabilities[head], labels[head] if labels else None, multi[head])
            for head, (name, classes) in enumerate(attributes)
        ),
        missing,
    )
