"""A trial's validation predictions: the class probabilities of its best epoch, and the labels beside them."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fashion.bucket.address import Address, is_address
from fashion.errors import DataError, Problem, RunError
from fashion.record.run import VAL_LABELS, Run
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
    path = _brought(run, address, name)
    if not path.is_file():
        fix = "If the sweep was killed, type its command again to go on"
        raise RunError(Problem(f"{run.location}/{name}", "the validation predictions are missing", fix=fix))
    attributes = attributes_of(run.manifest["attributes"])
    images, probabilities = _probabilities(path, attributes)
    labels, missing = _labels(run, trial, address, images)
    return ValidationPredictions(
        trial.number,
        best.epoch,
        tuple(images),
        tuple(
            AttributePredictions(name, classes, values, None if labels is None else labels[:, head])
            for head, ((name, classes), values) in enumerate(zip(attributes, probabilities, strict=True))
        ),
        missing,
    )


def _probabilities(
    path: Path, attributes: list[tuple[str, tuple[str, ...]]]
) -> tuple[list[str], list[NDArray[np.float32]]]:
    """The images that a trial's predictions list, and (N, classes) float32 of each attribute."""
    try:
        table = pq.read_table(path)
        images = table.column("image").to_pylist()
        if not all(isinstance(image, str) for image in images):
            raise TypeError("image is no text everywhere")
        values = []
        for name, classes in attributes:
            lists = table.column(name).to_pylist()
            if any(len(row) != len(classes) for row in lists):
                raise ValueError(f"{name} has no probability for each of its {len(classes)} classes in every row")
            values.append(np.array(lists, np.float32).reshape(len(images), len(classes)))
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        rule = "must be a Parquet file of class probabilities"
        fix = "The file was damaged or replaced"
        raise RunError(Problem(str(path), rule, f"{type(error).__name__}: {error}", fix)) from error
    return images, values


def _labels(run: Run, trial: Trial, address: Address | None, images: list[str]) -> tuple[NDArray[np.int64] | None, str]:
    """The labels (N, heads) of the images; or None and why they are not known."""
    path = _brought(run, address, VAL_LABELS)
    if not path.is_file():
        return _labels_of_data_set(run, trial, images)
    attributes = attributes_of(run.manifest["attributes"])
    try:
        table = pq.read_table(path)
        listed = table.column("image").to_pylist()
        columns = [table.column(name).to_numpy().astype(np.int64, casting="safe") for name, _ in attributes]
        labels = np.stack(columns, axis=1)
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        rule = "must be a Parquet file of the validation labels"
        raise RunError(Problem(str(path), rule, f"{type(error).__name__}: {error}")) from error
    counts = np.array([len(classes) for _, classes in attributes])
    if ((labels < 0) | (labels >= counts)).any():
        raise RunError(Problem(str(path), "must hold the index of a class in every row"))
    if listed != images:
        raise RunError(Problem(str(path), f"must list the {len(images)} images of the predictions in their order"))
    return labels, ""


def _labels_of_data_set(run: Run, trial: Trial, images: list[str]) -> tuple[NDArray[np.int64] | None, str]:
    """As `_labels`, from the data set, for runs that an older version made."""
    from fashion.data.layout import read_dataset

    lacking = f"the run has no {VAL_LABELS}"
    named = [trial.config.get("data", {}).get("root"), run.manifest.get("data_root")]
    roots = [Path(os.path.expanduser(root)) for root in named if isinstance(root, str) and not is_address(root)]
    root = next((root for root in roots if os.path.isdir(root)), None)
    if root is None:
        places = ", ".join(dict.fromkeys(str(each) for each in named if each))
        return None, f"{lacking}, and its data set is not on this machine ({places})"
    try:
        data = trial.config.get("data", {})
        dataset = read_dataset(root, bool(data.get("follow_links", False)), str(data.get("on_error", "refuse")))
        fingerprint = dataset.fingerprint()
    except DataError as error:
        return None, f"{lacking}, and its data set can't be used: {error}"
    if fingerprint != run.manifest["data_fingerprint"]:
        return None, f"{lacking}, and the data set at {root} has changed since the run"
    if list(dataset.splits["val"].images) != images:
        return None, f"{lacking}, and the predictions list other images than the data set at {root}"
    return dataset.labels("val"), ""


def _brought(run: Run, address: Address | None, name: str) -> Path:
    """A file of the run on this machine, fetched from the bucket where the copy lacks it and the bucket has it."""
    path = run.path / name
    if address is not None and not path.is_file():
        from contextlib import suppress

        from fashion.bucket.store import NotThereError, Store

        with suppress(NotThereError):  # the caller says what is missing
            Store(address).fetch(name, path)
    return path
