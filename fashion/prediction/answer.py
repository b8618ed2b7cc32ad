"""The files that an answer consists of beside the submission: `predictions.csv` for people, Parquet for programs.

Both are written and read back a piece at a time.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from fashion.data.layout import Attribute, split_labels
from fashion.errors import Problem, SubmissionError
from fashion.files import sync
from fashion.prediction.pieces import Piece
from fashion.prediction.probabilities import WHY, disagreements, probability_table, require_agreement, row_groups

TABLE_NAME = "predictions.csv"
PROBABILITIES_NAME = "probabilities.parquet"
# A cell that begins like this is a formula to a spreadsheet, which a stranger's file name must not be.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def header(attributes: Sequence[Attribute], with_reasons: bool, file_column: str = "") -> list[str]:
    """The first line of predictions.csv. file_column: what the label file calls the column of the images.

    Attributes hold no blanks, so no two columns have one name."""
    names = [attribute.name for attribute in attributes]
    # `image` is never an attribute's name
    first = file_column if file_column and file_column not in names else "image" if "file" in names else "file"
    columns = [column for attribute in attributes for column in _columns(attribute)]
    return [first, *columns, *([WHY] if with_reasons else [])]


def _columns(attribute: Attribute) -> list[str]:
    if not attribute.multi_label:
        return [attribute.name, f"{attribute.name} probability"]
    return [attribute.name, *(f"{attribute.name} {name} probability" for name in attribute.classes)]


def write_table(
    path: Path, attributes: Sequence[Attribute], pieces: Iterable[Piece], with_reasons: bool, file_column: str = ""
) -> None:
    """Write predictions.csv: a picture, then for each attribute the most probable class and its probability; for a
    multi-label one the classes whose probability is above 0.5, with | between them, and each class's probability.

    with_reasons: a last column says why a picture has no prediction."""
    with open(path, "w", newline="", encoding="utf-8") as stream:
        lines = csv.writer(stream, lineterminator="\n")
        lines.writerow(header(attributes, with_reasons, file_column))
        for piece in pieces:
            lines.writerows(_lines(attributes, piece, with_reasons))
        stream.flush()
        sync(stream.fileno(), path)


def _lines(attributes: Sequence[Attribute], piece: Piece, with_reasons: bool) -> Iterator[list[str]]:
    heads = list(zip(split_labels(attributes, piece.classes), piece.probabilities, strict=True))
    for row, name in enumerate(piece.names):
        line = [cell(name)]
        for (attribute, classes), probabilities in heads:
            if row in piece.problems:
                line += [""] * len(_columns(attribute))
            elif attribute.multi_label:
                held = "|".join(attribute.classes[index] for index in np.flatnonzero(classes[row]))
                line += [cell(held), *(f"{share:.6g}" for share in probabilities[row])]
            else:
                line += [cell(attribute.classes[classes[row]]), f"{probabilities[row, classes[row]]:.6g}"]
        yield [*line, *([cell(piece.problems.get(row, ""))] if with_reasons else [])]


def cell(text: str) -> str:
    """Text that a spreadsheet shows as it is: one that it would compute gets an apostrophe in front."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def write_answer_probabilities(
    path: Path, attributes: Sequence[Attribute], pieces: Iterable[Piece], with_reasons: bool, file_column: str = ""
) -> None:
    """Write the class probabilities as `submission.write_probabilities` does, a row group for each piece."""
    named = [(attribute.name, attribute.classes) for attribute in attributes]
    multi = [attribute.multi_label for attribute in attributes]
    column = file_column if file_column not in ("", *(attribute.name for attribute in attributes)) else "image"
    with open(path, "wb") as stream:
        writer = None
        for piece in pieces:
            reasons = [piece.problems.get(row) for row in range(len(piece.names))] if with_reasons else None
            table = probability_table(piece.names, named, piece.probabilities, reasons, multi, column)
            writer = writer or pq.ParquetWriter(stream, table.schema, compression="zstd")
            writer.write_table(table)
        if writer is not None:
            writer.close()
        stream.flush()
        sync(stream.fileno(), path)


def validate_answer_probabilities(path: Path, pieces: Iterable[Piece], multi_label: Sequence[bool] = ()) -> None:
    """Read the class probabilities back. multi_label: which attributes are; by default none.

    Raises SubmissionError where they don't agree with the pieces."""
    for found, piece in zip_longest(row_groups(path), pieces):
        if found is None or piece is None:
            rule, got = "must have a row group for each piece", "more" if piece is None else "fewer"
            require_agreement(path, [Problem(path.name, rule, got)])
        require_agreement(path, disagreements(path, found, piece.names, piece.classes, piece.predicted, multi_label))


def validate_table(
    path: Path, attributes: Sequence[Attribute], pieces: Iterable[Piece], with_reasons: bool, file_column: str = ""
) -> None:
    """Read predictions.csv back. Raises SubmissionError where it does not say what the pieces do."""
    with open(path, newline="", encoding="utf-8") as stream:
        lines = csv.reader(stream)
        wanted = (line for piece in pieces for line in _lines(attributes, piece, with_reasons))
        number = 0
        for number, expected in enumerate(chain([header(attributes, with_reasons, file_column)], wanted), start=1):
            _require(path, number, next(lines, []), expected)
        _require(path, number + 1, next(lines, []), [])


def _require(path: Path, number: int, found: list[str], expected: list[str]) -> None:
    if found != expected:
        rule = f"must be {', '.join(expected) or 'the end of the file'}"
        problem = Problem(f"{path.name}:{number}", rule, ", ".join(found) or "the end of the file")
        raise SubmissionError(f"{path} does not agree with the predictions:", [problem])
