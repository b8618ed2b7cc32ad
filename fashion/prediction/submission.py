"""The challenge's submission format: writing it, reading it back, and the class probabilities beside it.

`prediction.txt` has one line per image, in the order of the split's list: the class index of each attribute, separated
by single spaces. Each line ends with a newline. `prediction.txt.zip` holds that file alone, at its root. Every byte is
determined by the predictions: the same predictions give the same archive.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fashion.errors import Problem, SubmissionError
from fashion.files import write_atomic

TEXT_NAME = "prediction.txt"
ARCHIVE_NAME = "prediction.txt.zip"
_FIRST_ZIP_DATE = (1980, 1, 1, 0, 0, 0)  # a fixed date keeps the archive's bytes reproducible
_SHOWN = 20  # problems of a file that are listed; further ones are only counted
_MOST_DIGITS = 18  # of an index that is read: a longer one is too large in any case
_LARGEST_TEXT = 1 << 30  # bytes to which a member may unpack, so that an archive bomb can't fill the memory


@dataclass(frozen=True)
class Submission:
    """The files that `write_submission` wrote."""

    text: Path
    archive: Path


def write_submission(classes: np.ndarray, directory: Path) -> Submission:
    """Write class indices (N, heads) as `prediction.txt` and `prediction.txt.zip` into `directory`, each atomically.

    Raises ValueError for anything but a two-dimensional array of non-negative integers.
    """
    if classes.ndim != 2 or not np.issubdtype(classes.dtype, np.integer) or (classes.size and classes.min() < 0):
        raise ValueError(f"expected non-negative integers of shape (N, heads), got {classes.dtype} {classes.shape}")
    content = "".join(" ".join(map(str, row)) + "\n" for row in classes.tolist()).encode("ascii")
    member = zipfile.ZipInfo(TEXT_NAME, _FIRST_ZIP_DATE)
    member.compress_type = zipfile.ZIP_DEFLATED
    member.create_system = 3  # Unix on all machines: the default depends on the machine
    member.external_attr = 0o100644 << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(member, content)
    directory.mkdir(parents=True, exist_ok=True)
    submission = Submission(directory / TEXT_NAME, directory / ARCHIVE_NAME)
    write_atomic(submission.text, content)
    write_atomic(submission.archive, buffer.getvalue())
    return submission


def validate_submission(
    path: Path,
    rows: int,
    class_counts: Sequence[int],
    names: Sequence[str] | None = None,
    expected: np.ndarray | None = None,
) -> list[str]:
    """Read a `.txt` or `.zip` submission and check its format. Returns warnings about collapsed heads.

    `rows` is the number of images, `class_counts` the number of classes of each head in column order, `names` the
    heads' names for messages. `expected` (N, heads) are the classes that the lines must state, which checks their
    order, too. Raises SubmissionError with every problem found.
    """
    problems: list[Problem] = []
    content = _content(path, problems)
    classes = _parse(content, path.name, class_counts, problems) if content is not None else None
    if classes is not None and len(classes) != rows:
        problems.append(Problem(path.name, f"must have one line per image: {rows}", f"{len(classes)} lines"))
    elif classes is not None and expected is not None:
        for line in range(rows):
            if classes[line] is not None and classes[line] != expected[line].tolist():
                stated, wanted = (" ".join(map(str, row)) for row in (classes[line] or [], expected[line].tolist()))
                rule = f"must state the prediction of its own image ({wanted})"
                problems.append(Problem(f"{path.name}:{line + 1}", rule, stated))
    if problems:
        left = len(problems) - _SHOWN
        shown = problems[:_SHOWN] + ([Problem(path.name, f"{left} more problems")] if left > 0 else [])
        raise SubmissionError(f"{path} is not a valid submission:", shown)
    whole = np.array(classes, dtype=np.int64).reshape(rows, len(class_counts))
    return collapsed_heads(whole, class_counts, names)


def collapsed_heads(
    classes: np.ndarray,
    class_counts: Sequence[int],
    names: Sequence[str] | None = None,
    class_names: Sequence[Sequence[str]] | None = None,
) -> list[str]:
    """A warning for each head whose predictions are all the same class, and one for classes that are never predicted.

    `classes` are the predictions (N, heads), `names` the heads' names, `class_names` the names of their classes,
    without which indices are shown. A well-formed file can still be worthless: one column of the challenge report's own
    submission is constant.
    """
    labels = list(names or (f"attribute {head + 1}" for head in range(len(class_counts))))
    shown = class_names or [[str(index) for index in range(count)] for count in class_counts]
    warnings, unused = [], []
    for head, (label, count) in enumerate(zip(labels, class_counts, strict=True)):
        seen = np.unique(classes[:, head])
        if len(classes) > 1 and count > 1 and len(seen) == 1:
            warnings.append(
                f"{label}: every one of the {len(classes)} images is predicted as class {shown[head][seen[0]]}"
            )
        elif len(seen) < count:
            missing = ", ".join(shown[head][index] for index in range(count) if index not in seen)
            unused.append(f"{label} {missing}")
    if unused and len(classes) > 1:
        warnings.append(f"classes that are never predicted: {'; '.join(unused)}")
    return warnings


def write_probabilities(
    path: Path,
    images: Sequence[str],
    attributes: Iterable[tuple[str, Sequence[str]]],
    probabilities: Sequence[np.ndarray],
) -> Path:
    """Write class probabilities as Parquet: a column `image`, and for each attribute a list of float32.

    `attributes` gives each head's (name, class names); `probabilities[head]` has shape (N, classes). The class
    names stand in the column's metadata as JSON under `classes`, in the order of the list.
    """
    columns: list[pa.Array] = [pa.array(images, pa.string())]
    fields = [pa.field("image", pa.string(), nullable=False)]
    for (name, classes), values in zip(attributes, probabilities, strict=True):
        if values.shape != (len(images), len(classes)):
            raise ValueError(
                f"{name}: expected probabilities of shape {(len(images), len(classes))}, got {values.shape}"
            )
        ends = np.arange(0, values.size + 1, len(classes), dtype=np.int32)
        flat = pa.array(np.ascontiguousarray(values, dtype=np.float32).reshape(-1))
        columns.append(pa.ListArray.from_arrays(pa.array(ends), flat))
        fields.append(pa.field(name, pa.list_(pa.float32()), metadata={"classes": json.dumps(list(classes))}))
    table = pa.Table.from_arrays(columns, schema=pa.schema(fields))
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    write_atomic(path, buffer.getvalue())
    return path


def read_probabilities(path: Path) -> tuple[list[str], dict[str, tuple[str, ...]], list[np.ndarray]]:
    """Read what `write_probabilities` wrote: images, {attribute: class names}, and per head (N, classes) float32.

    Raises SubmissionError where the file is missing, truncated or has another format.
    """
    try:
        table = pq.read_table(path)
        attributes = {field.name: tuple(json.loads(field.metadata[b"classes"])) for field in list(table.schema)[1:]}
        images = table.column("image").to_pylist()
        values = []
        for name, classes in attributes.items():
            column = table.column(name).combine_chunks()
            if not pa.types.is_list(column.type) or not pa.types.is_float32(column.type.value_type):
                raise TypeError(f"{name} is {column.type}, not a list of float32")
            if not (column.value_lengths().to_numpy(zero_copy_only=False) == len(classes)).all():
                raise ValueError(f"{name} has {len(classes)} classes, but not that many probabilities in every row")
            values.append(column.flatten().to_numpy(zero_copy_only=False).reshape(len(images), len(classes)))
        if not all(isinstance(image, str) for image in images):
            raise TypeError("some images' names are no text")
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError, RecursionError) as error:
        problem = Problem(
            str(path), "must be a Parquet file of class probabilities", f"{type(error).__name__}: {error}"
        )
        raise SubmissionError("The class probabilities can't be read:", [problem]) from error
    return images, attributes, values


def validate_probabilities(path: Path, images: Sequence[str], classes: np.ndarray) -> None:
    """Read a Parquet file of probabilities and check that it agrees with the predictions.

    Its images must be in order, each row must be a distribution, and `classes` (N, heads) must be most probable there
    (a tie has several most probable classes). Raises SubmissionError with every problem found.
    """
    names, attributes, values = read_probabilities(path)
    problems = []
    if names != list(images):
        first = next((i for i, pair in enumerate(zip(names, images, strict=False)) if pair[0] != pair[1]), None)
        got = f"{len(names)} rows" if first is None else f"{names[first]!r} in row {first + 1}"
        rule = f"must list the {len(images)} images in their order"
        problems.append(Problem(path.name, rule, got))
    if len(values) != classes.shape[1]:
        rule = f"must have a column for each of the {classes.shape[1]} attributes"
        problems.append(Problem(path.name, rule, ", ".join(attributes)))
    for head, (name, rows) in enumerate(zip(attributes, values, strict=True)):
        if head >= classes.shape[1]:
            break
        if not np.isfinite(rows).all() or np.abs(rows.sum(axis=1) - 1.0).max(initial=0.0) > 1e-4 or (rows < 0).any():
            problems.append(Problem(f"{path.name}: {name}", "each row's probabilities must be finite and sum to 1"))
        elif rows.shape[1] <= classes[:, head].max(initial=0):
            rule = f"must have a probability for class {classes[:, head].max()}, which is predicted"
            problems.append(Problem(f"{path.name}: {name}", rule, f"{rows.shape[1]} classes"))
        elif len(rows) == len(classes):
            chosen = np.take_along_axis(rows, classes[:, head, None], axis=1)[:, 0]
            for row in np.flatnonzero(chosen < rows.max(axis=1)).tolist():
                rule = f"the predicted class ({classes[row, head]}) must be the most probable one"
                problems.append(Problem(f"{path.name}: {name}, row {row + 1}", rule, str(int(rows[row].argmax()))))
    if problems:
        raise SubmissionError(f"{path} does not agree with the predictions:", problems[:_SHOWN])


def _content(path: Path, problems: list[Problem]) -> bytes | None:
    """The bytes of prediction.txt: `path` itself, or the single member of a zip; None where they can't be read."""
    if not path.is_file():
        problems.append(Problem(str(path), "the file must exist"))
        return None
    if path.suffix.lower() != ".zip":
        if path.stat().st_size > _LARGEST_TEXT:
            problems.append(Problem(path.name, "must be at most 1 GiB", f"{path.stat().st_size} bytes"))
            return None
        return path.read_bytes()
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
            if members != [TEXT_NAME]:
                rule = f"must hold the single file {TEXT_NAME} at its root"
                fix = "Zip the file itself, not its folder"
                problems.append(Problem(path.name, rule, ", ".join(members[:5]) or "an empty archive", fix))
                return None
            size = archive.getinfo(TEXT_NAME).file_size
            if size > _LARGEST_TEXT:
                problems.append(Problem(path.name, f"{TEXT_NAME} must be at most 1 GiB", f"{size} bytes"))
                return None
            return archive.read(TEXT_NAME)
    except Exception as error:
        # The archive's header names the decompressor, and each has exceptions of its own for damaged bytes.
        problems.append(Problem(path.name, "must be a whole zip archive that needs no password", str(error)))
        return None


def _parse(content: bytes, place: str, class_counts: Sequence[int], problems: list[Problem]) -> list[list[int] | None]:
    """Each line's class indices; None for a malformed line, whose problem is added."""
    if not content:
        return []
    if not content.endswith(b"\n"):
        problems.append(Problem(place, "the last line must end with a newline"))
    lines: list[list[int] | None] = []
    for number, line in enumerate(content.removesuffix(b"\n").split(b"\n"), start=1):
        words, where, shown = line.split(b" "), f"{place}:{number}", ascii(line[:40].decode("latin-1"))
        if not all(word.isdigit() for word in words):
            problems.append(Problem(where, "must be class indices separated by single spaces", shown))
        elif len(words) != len(class_counts):
            problems.append(Problem(where, f"must have {len(class_counts)} columns", f"{len(words)}: {shown}"))
        elif any(len(word) > 1 and word.startswith(b"0") for word in words):
            problems.append(Problem(where, "indices must be written without leading zeros", shown))
        else:
            row = [int(word[:_MOST_DIGITS]) for word in words]
            for column, (index, count) in enumerate(zip(row, class_counts, strict=True), start=1):
                if index >= count:
                    problems.append(Problem(f"{where}, column {column}", f"must be 0 to {count - 1}", str(index)))
            lines.append(row)
            continue
        lines.append(None)
    return lines
