"""A trial's validation predictions: the class probabilities of its best epoch, and the labels beside them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fashion.bucket.address import Address, is_address
from fashion.data.lists import MISSING
from fashion.errors import DataError, Problem, RunError
from fashion.record.run import VAL_LABELS, Run
from fashion.record.trial import Trial
from fashion.record.trial_files import folder_name, predictions_name
from fashion.record.validate import MULTI_LABEL, attributes_of, multi_label_of


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
        return np.array([average_precision(*each) for each in self._by_class(self.probabilities)])

    def f1(self) -> NDArray[np.float64]:
        """(classes,) the F1 score of each class's decisions (`predicted`), over the images whose label is known, as
        scikit-learn's `f1_score`; 0 for a class that no image has. Raises ValueError without labels."""
        decided = self.predicted
        if not self.multi_label:
            decided = (decided[:, None] == np.arange(len(self.classes))).astype(np.int64)
        return np.array([f1(*each) for each in self._by_class(decided)])

    def _by_class(self, scores: NDArray[Any]) -> Iterator[tuple[NDArray[np.bool_], NDArray[Any]]]:
        """For each class, of the images whose label is known, whether they have it, and their scores."""
        if self.labels is None:
            raise ValueError(f"{self.name} has no labels")
        for index in range(len(self.classes)):
            labels = self.labels[:, index] if self.multi_label else self.labels
            known = labels >= 0
            yield labels[known] == (1 if self.multi_label else index), scores[known, index]


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


def average_precision(holds: NDArray[np.bool_], scores: NDArray[np.floating[Any]]) -> float:
    """The sum over thresholds of the gain in recall times the precision there, for (n,) scores of which `holds` says
    whether they should be high; 0 where none should. Equal scores share a threshold."""
    order = np.argsort(-scores, kind="stable")
    held, ranked = np.cumsum(holds[order]), scores[order]
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True)) if len(ranked) else np.zeros(0, np.int64)
    if not holds.any():
        return 0.0
    gained = np.diff(held[last], prepend=0)
    return float((gained * held[last] / (last + 1)).sum() / held[-1])


def f1(holds: NDArray[np.bool_], decided: NDArray[np.int64]) -> float:
    """The harmonic mean of precision and recall of decisions (n,) of 0 and 1; 0 where there is nothing to find."""
    found = int((holds & (decided == 1)).sum())
    either = int(holds.sum()) + int((decided == 1).sum())
    return 2 * found / either if either else 0.0


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
    attributes, multi = attributes_of(run.manifest["attributes"]), multi_label_of(run.manifest["attributes"])
    images, probabilities = _probabilities(path, attributes)
    labels, missing = _labels(run, trial, address, images)
    return ValidationPredictions(
        trial.number,
        best.epoch,
        tuple(images),
        tuple(
            AttributePredictions(name, classes, probabilities[head], labels[head] if labels else None, multi[head])
            for head, (name, classes) in enumerate(attributes)
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


def _labels(
    run: Run, trial: Trial, address: Address | None, images: list[str]
) -> tuple[list[NDArray[np.int64]] | None, str]:
    """Each attribute's labels of the images, as `AttributePredictions` has them; or None and why they are not known."""
    path = _brought(run, address, VAL_LABELS)
    if not path.is_file():
        return _labels_of_data_set(run, trial, images)
    attributes, multi = attributes_of(run.manifest["attributes"]), multi_label_of(run.manifest["attributes"])
    try:
        table = pq.read_table(path)
        listed = table.column("image").to_pylist()
        labels = [
            _lists(table.column(name), len(classes)) if each else _indices(table.column(name))
            for (name, classes), each in zip(attributes, multi, strict=True)
        ]
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        rule = "must be a Parquet file of the validation labels"
        raise RunError(Problem(str(path), rule, f"{type(error).__name__}: {error}")) from error
    counts = [2 if each else len(classes) for (_, classes), each in zip(attributes, multi, strict=True)]
    if any(((head < MISSING) | (head >= count)).any() for head, count in zip(labels, counts, strict=True)):
        raise RunError(Problem(str(path), "must hold the index of a class in every row"))
    if listed != images:
        raise RunError(Problem(str(path), f"must list the {len(images)} images of the predictions in their order"))
    return labels, ""


def _indices(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """A column of whole numbers as (N,) int64, with MISSING for null. Raises TypeError for another column."""
    if not pa.types.is_integer(column.type):
        raise TypeError(f"a column of {column.type}, not of whole numbers")
    values = column.cast(pa.int64()).fill_null(0).to_numpy()
    # Missing is null; a number below 0 is a mistake, and stays one that the caller sees.
    found: NDArray[np.int64] = np.where(values < 0, MISSING - 1, values)
    found[column.is_null().to_numpy()] = MISSING
    return found


def _lists(column: pa.ChunkedArray, classes: int) -> NDArray[np.int64]:
    """A column of lists, one whole number or null for each class, as (N, classes) int64."""
    whole = column.combine_chunks()
    if (
        not pa.types.is_list(whole.type)
        or not pc.all(pc.equal(whole.value_lengths(), classes), skip_nulls=False).as_py()
    ):
        raise ValueError(f"a column without a list of {classes} in every row")
    return _indices(pa.chunked_array([whole.flatten()])).reshape(len(whole), classes)


def _labels_of_data_set(run: Run, trial: Trial, images: list[str]) -> tuple[list[NDArray[np.int64]] | None, str]:
    """As `_labels`, from the data set, for runs that an older version made."""
    from fashion.data.layout import read_dataset, split_labels

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
    return [labels for _, labels in split_labels(dataset.attributes, dataset.labels("val"))], ""


def _brought(run: Run, address: Address | None, name: str) -> Path:
    """A file of the run on this machine, fetched from the bucket where the copy lacks it and the bucket has it."""
    path = run.path / name
    if address is not None and not path.is_file():
        from contextlib import suppress

        from fashion.bucket.store import NotThereError, Store

        with suppress(NotThereError):  # the caller says what is missing
            Store(address).fetch(name, path)
    return path
