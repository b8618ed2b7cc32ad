"""A run's validation files: the class probabilities of its trials' best epochs, and the labels."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fashion.bucket.address import Address, is_address
from fashion.errors import DataError, Problem, RunError
from fashion.record.run import VAL_LABELS, Run
from fashion.record.trial import Trial
from fashion.record.validate import attributes_of
from fashion.statistics.outcomes import MISSING

_FETCHING = 16  # files that are fetched from a bucket at a time

# Of each attribute (N,) class indices, or of a multi-label one (N, classes) of 0 and 1; MISSING where not known.
Labels = list[NDArray[np.int64]]


def read_probabilities(
    path: Path, attributes: Sequence[tuple[str, tuple[str, ...]]]
) -> tuple[pa.Array, list[NDArray[np.float32]]]:
    """The images that a trial's predictions list, as text, and (N, classes) float32 of each attribute. attributes: each
    one's name and classes.

    Raises RunError for a file that holds anything else.
    """
    try:
        # A sweep has hundreds of such small files: this takes a fraction of the time of `read_table`.
        with pq.ParquetFile(path) as file:
            table = file.read(use_threads=False)
        images = _images(table)
        values = []
        for name, classes in attributes:
            column = table.column(name).combine_chunks()
            lengths = pc.list_value_length(column)
            flat = pc.list_flatten(column)
            if (
                lengths.null_count
                or flat.null_count
                or not pc.all(pc.equal(lengths, len(classes)), min_count=0).as_py()
            ):
                raise ValueError(f"{name} has no probability for each of its {len(classes)} classes in every row")
            values.append(flat.to_numpy(zero_copy_only=False).astype(np.float32).reshape(len(images), len(classes)))
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        rule = "must be a Parquet file of class probabilities"
        fix = "The file was damaged or replaced"
        raise RunError(Problem(str(path), rule, f"{type(error).__name__}: {error}", fix)) from error
    return images, values


def _images(table: pa.Table) -> pa.Array:
    column = table.column("image").combine_chunks()
    if not pa.types.is_string(column.type) or column.null_count:
        raise TypeError("image is no text everywhere")
    return column


def read_labels(run: Run, trial: Trial, address: Address | None, images: pa.Array) -> tuple[Labels | None, str]:
    """The labels of the images that the trial's predictions list; or None and why they are not known.

    Raises RunError for a damaged file or one of other images, StorageError when the bucket can't be read.
    """
    path = fetched(run, address, [VAL_LABELS])[0]
    if not path.is_file():
        return _labels_of_data_set(run, trial, images)
    try:
        table = pq.read_table(path)
        listed = _images(table)
        labels = [_column(table, name, len(classes)) for name, classes in attributes_of(run.manifest["attributes"])]
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        rule = "must be a Parquet file of the validation labels"
        raise RunError(Problem(str(path), rule, f"{type(error).__name__}: {error}")) from error
    for (_, classes), column in zip(attributes_of(run.manifest["attributes"]), labels, strict=True):
        count = 2 if column.ndim == 2 else len(classes)
        if ((column < MISSING) | (column >= count)).any():
            raise RunError(Problem(str(path), "must hold the index of a class in every row"))
    if not listed.equals(images):
        raise RunError(Problem(str(path), f"must list the {len(images)} images of the predictions in their order"))
    return labels, ""


def _column(table: pa.Table, name: str, classes: int) -> NDArray[np.int64]:
    """An attribute's labels: null, and -1 itself only as null, is MISSING."""
    column = table.column(name).combine_chunks()
    flat = column if pa.types.is_integer(column.type) else pc.list_flatten(column)
    if pc.any(pc.less(flat, 0)).as_py():
        raise ValueError(f"{name} holds a negative number; a label that is missing is null")
    if not pa.types.is_list(column.type) and not pa.types.is_fixed_size_list(column.type):
        values = column.fill_null(MISSING).to_numpy(zero_copy_only=False)
        return np.asarray(values).astype(np.int64, casting="safe")
    rows = [[None] * classes if row is None else row for row in column.to_pylist()]
    if any(len(row) != classes for row in rows):
        raise ValueError(f"{name} has no label for each of its {classes} classes in every row")
    return np.array([[MISSING if each is None else each for each in row] for row in rows], np.int64).reshape(
        -1, classes
    )


def _labels_of_data_set(run: Run, trial: Trial, images: pa.Array) -> tuple[Labels | None, str]:
    """As `read_labels`, from the data set, for runs that an older version made."""
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
    if list(dataset.splits["val"].images) != images.to_pylist():
        return None, f"{lacking}, and the predictions list other images than the data set at {root}"
    return [labels for _, labels in split_labels(dataset.attributes, dataset.labels("val"))], ""


def fetched(run: Run, address: Address | None, names: Iterable[str]) -> list[Path]:
    """Files of the run on this machine, fetched from the bucket where the copy lacks them and the bucket has them.

    Raises StorageError when the bucket can't be read. That a file is nowhere is for the caller to find.
    """
    names = list(names)
    paths = [run.path / name for name in names]
    lacking = [(name, path) for name, path in zip(names, paths, strict=True) if not path.is_file()]
    if address is not None and lacking:
        from fashion.bucket.store import NotThereError, Store

        store = Store(address)

        def fetch(wanted: tuple[str, Path]) -> None:
            with suppress(NotThereError):
                store.fetch(*wanted)

        with ThreadPoolExecutor(min(_FETCHING, len(lacking))) as threads:
            list(threads.map(fetch, lacking))
    return paths
