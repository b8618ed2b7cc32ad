"""Class probabilities in a Parquet file: written and read back by row groups, so that it need not fit into memory."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fashion.errors import Problem, SubmissionError
from fashion.files import write_atomic
from fashion.record.validate import MULTI_LABEL

WHY = "left out because"  # a column of reasons; attributes hold no blanks
_SHOWN = 20  # problems of a file that are listed
Values = tuple[list[str], dict[str, tuple[str, ...]], list[NDArray[np.float32]]]


def probability_table(
    images: Sequence[str],
    attributes: Iterable[tuple[str, Sequence[str]]],
    probabilities: Sequence[np.ndarray],
    reasons: Sequence[str | None] | None = None,
    multi_label: Sequence[bool] = (),
    file_column: str = "image",
) -> pa.Table:
    """A column of the images' names, called `file_column`, and for each attribute a list of float32.

    `attributes` gives each head's (name, class names); `probabilities[head]` has shape (N, classes). The class names
    stand in the column's metadata as JSON under `classes`, in the order of the list. multi_label: which attributes are,
    by default none; the metadata of such a column says "multi_label": "true". reasons: why an image has no
    prediction, None for one that has; such an image's lists are null, and a last column WHY holds the reasons. Raises
    ValueError for other shapes.
    """
    columns: list[pa.Array] = [pa.array(images, pa.string())]
    fields = [pa.field(file_column, pa.string(), nullable=False)]
    missing = None if reasons is None else pa.array([reason is not None for reason in reasons])
    named = list(attributes)
    multi = multi_label or [False] * len(named)
    for (name, classes), values, each in zip(named, probabilities, multi, strict=True):
        if values.shape != (len(images), len(classes)):
            raise ValueError(
                f"{name}: expected probabilities of shape {(len(images), len(classes))}, got {values.shape}"
            )
        ends = np.arange(0, values.size + 1, len(classes), dtype=np.int32)
        flat = pa.array(np.ascontiguousarray(values, dtype=np.float32).reshape(-1))
        columns.append(pa.ListArray.from_arrays(pa.array(ends), flat, mask=missing))
        metadata = {"classes": json.dumps(list(classes)), **(MULTI_LABEL if each else {})}
        fields.append(pa.field(name, pa.list_(pa.float32()), metadata=metadata))
    if reasons is not None:
        columns.append(pa.array(reasons, pa.string()))
        fields.append(pa.field(WHY, pa.string()))
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


def write_probabilities(
    path: Path,
    images: Sequence[str],
    attributes: Iterable[tuple[str, Sequence[str]]],
    probabilities: Sequence[np.ndarray],
) -> Path:
    """Write `probability_table` as Parquet. Raises ValueError for other shapes."""
    table = probability_table(images, attributes, probabilities)
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    write_atomic(path, buffer.getvalue())
    return path


def read_probabilities(path: Path) -> Values:
    """Read what `write_probabilities` wrote: images, {attribute: class names}, and per head (N, classes) float32, NaN
    for images without a prediction.

    Raises SubmissionError where the file is missing, truncated or has another format.
    """
    images: list[str] = []
    parts = []
    attributes: dict[str, tuple[str, ...]] = {}
    for names, known, values in row_groups(path):
        images += names
        attributes = known
        parts.append(values)
    return images, attributes, [np.concatenate(heads) for heads in zip(*parts, strict=True)]


def row_groups(path: Path) -> Iterator[Values]:
    """As `read_probabilities`, a row group at a time; one without rows if there is no row group."""
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            classed = [field for field in list(schema)[1:] if field.name != WHY]
            attributes = {field.name: tuple(json.loads(field.metadata[b"classes"])) for field in classed}
            groups = (file.read_row_group(group) for group in range(file.num_row_groups))
            for table in groups if file.num_row_groups else [schema.empty_table()]:
                images = table.column(0).to_pylist()
                if not all(isinstance(image, str) for image in images):
                    raise TypeError("some images' names are no text")
                yield images, attributes, [_values(table, *attribute) for attribute in attributes.items()]
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError, RecursionError) as error:
        problem = Problem(
            str(path), "must be a Parquet file of class probabilities", f"{type(error).__name__}: {error}"
        )
        raise SubmissionError("The class probabilities can't be read:", [problem]) from error


def _values(table: pa.Table, name: str, classes: tuple[str, ...]) -> NDArray[np.float32]:
    column = table.column(name).combine_chunks()
    if not pa.types.is_list(column.type) or not pa.types.is_float32(column.type.value_type):
        raise TypeError(f"{name} is {column.type}, not a list of float32")
    there = column.is_valid().to_numpy(zero_copy_only=False)
    if not (column.drop_null().value_lengths().to_numpy(zero_copy_only=False) == len(classes)).all():
        raise ValueError(f"{name} has {len(classes)} classes, but not that many probabilities in every row")
    values = np.full((len(column), len(classes)), np.nan, np.float32)
    values[there] = column.flatten().to_numpy(zero_copy_only=False).reshape(int(there.sum()), len(classes))
    return values


def validate_probabilities(path: Path, images: Sequence[str], classes: np.ndarray) -> None:
    """Read a Parquet file of probabilities and check that it agrees with the predictions.

    Its images must be in order, each row must be a distribution, and `classes` (N, heads) must be most probable there
    (a tie has several most probable classes). Raises SubmissionError with every problem found.
    """
    require_agreement(path, disagreements(path, read_probabilities(path), images, classes))


def require_agreement(path: Path, problems: Sequence[Problem]) -> None:
    if problems:
        raise SubmissionError(f"{path} does not agree with the predictions:", problems[:_SHOWN])


def disagreements(
    path: Path,
    found: Values,
    images: Sequence[str],
    classes: np.ndarray,
    predicted: np.ndarray | None = None,
    multi_label: Sequence[bool] = (),
) -> list[Problem]:
    """What `validate_probabilities` refuses, in some rows of a file. predicted: (N,) bool, which of the images have a
    prediction; all of them by default. multi_label: which attributes are, by default none: `classes` (N, columns) has
    0 or 1 for each class of such a one, and its probabilities are in [0, 1]."""
    names, attributes, values = found
    there = np.ones(len(classes), np.bool_) if predicted is None else predicted
    problems = []
    if names != list(images):
        first = next((i for i, pair in enumerate(zip(names, images, strict=False)) if pair[0] != pair[1]), None)
        got = f"{len(names)} rows" if first is None else f"{names[first]!r} in row {first + 1}"
        rule = f"must list the {len(images)} images in their order"
        problems.append(Problem(path.name, rule, got))
    heads = len(multi_label) or classes.shape[1]
    if len(values) != heads:
        rule = f"must have a column for each of the {heads} attributes"
        problems.append(Problem(path.name, rule, ", ".join(attributes)))
    start = 0
    for name, every_row, multi in zip(attributes, values, multi_label or [False] * heads, strict=False):
        rows = every_row[there] if len(every_row) == len(there) else every_row
        if start >= classes.shape[1]:
            break  # an attribute before had more classes than are predicted, which was told
        if multi:
            decided = classes[there, start : start + rows.shape[1]]
            start += rows.shape[1]
            if not ((rows >= 0) & (rows <= 1)).all():
                problems.append(Problem(f"{path.name}: {name}", "each probability must be between 0 and 1"))
            elif rows.shape != decided.shape or ((rows > 0.5) != (decided == 1)).any():
                rule = "exactly the predicted classes must have a probability above 0.5"
                problems.append(Problem(f"{path.name}: {name}", rule))
            continue
        wanted = classes[there, start]
        start += 1
        if not np.isfinite(rows).all() or np.abs(rows.sum(axis=1) - 1.0).max(initial=0.0) > 1e-4 or (rows < 0).any():
            problems.append(Problem(f"{path.name}: {name}", "each row's probabilities must be finite and sum to 1"))
        elif rows.shape[1] <= wanted.max(initial=0):
            rule = f"must have a probability for class {wanted.max()}, which is predicted"
            problems.append(Problem(f"{path.name}: {name}", rule, f"{rows.shape[1]} classes"))
        elif len(rows) == len(wanted):
            chosen = np.take_along_axis(rows, wanted[:, None], axis=1)[:, 0]
            for row in np.flatnonzero(chosen < rows.max(axis=1)).tolist():
                rule = f"the predicted class ({wanted[row]}) must be the most probable one"
                problems.append(Problem(f"{path.name}: {name}, row {row + 1}", rule, str(int(rows[row].argmax()))))
    return problems
