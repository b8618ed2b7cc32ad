"""Label files as CSV and TSV: a block of rows at a time."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray

from fashion.data.forms.cells import MOST_MISTAKES, LabelTable, RowBlock, first_line, without_missing
from fashion.data.lists import Scan

BLOCK = 1 << 22  # bytes of text that are parsed at a time; no line may be longer
LONGEST_HEADER = 1 << 20  # bytes


def open_text(scan: Scan, path: Path, delimiter: str) -> LabelTable | None:
    """As `open_table`. Raises OSError, UnicodeDecodeError, and ArrowException of pyarrow."""
    with open(path, "rb") as file:
        first = file.readline(LONGEST_HEADER)
    if first.startswith((b"\xff\xfe", b"\xfe\xff")):
        fix = "Save it as UTF-8 (in a spreadsheet: CSV UTF-8)"
        scan.add("unreadable", scan.source, "must be UTF-8 text", "UTF-16", fix)
        return None
    header = first.decode("utf-8-sig").splitlines() or [""]
    if "\0" in header[0]:
        scan.add("unreadable", scan.source, "must be text", "a NUL character")
        return None
    names = next(csv.reader([header[0]], delimiter=delimiter), [])
    other = {",": ";", "\t": ","}[delimiter]
    if len(names) < 2 and other in header[0]:
        word = {",": "commas", "\t": "tabs"}[delimiter]
        fix = "Save it with commas" if delimiter == "," else "Call it .csv"
        scan.add("columns", f"{scan.source}:1", f"columns are separated by {word}", repr(header[0][:60]), fix)
        return None
    if not header[0].strip():
        scan.add("empty", f"{scan.source}:1", "the first line names the columns", "an empty line")
        return None
    return LabelTable(tuple(name.strip() for name in names), lambda wanted: _text(scan, path, delimiter, names, wanted))


def _text(scan: Scan, path: Path, delimiter: str, names: Sequence[str], wanted: Sequence[str]) -> Iterator[RowBlock]:
    broken: list[int] = []
    stripped = [name.strip() for name in names]

    def on_broken(row: Any) -> str:
        broken.append(row.number)
        rule = f"has {row.expected_columns} cells, like the first line"
        scan.add("columns", f"{scan.source}:{row.number}", rule, f"{row.actual_columns} cells")
        return "skip" if len(broken) < MOST_MISTAKES else "error"

    unique = [f"{number}" for number in range(len(names))]  # names may be empty or occur twice
    where = {name: unique[stripped.index(name)] for name in wanted}
    try:
        reader = pa.csv.open_csv(
            path,
            pa.csv.ReadOptions(use_threads=False, block_size=BLOCK, column_names=unique, skip_rows=1),
            pa.csv.ParseOptions(delimiter=delimiter, invalid_row_handler=on_broken, ignore_empty_lines=False),
            pa.csv.ConvertOptions(
                column_types=dict.fromkeys(where.values(), pa.binary()),
                include_columns=list(dict.fromkeys(where.values())),
                strings_can_be_null=False,
            ),
        )
    except ValueError as error:  # ArrowInvalid, or a broken line that is no UTF-8
        if "Empty CSV" not in str(error):  # a header alone has no rows
            scan.add("unreadable", scan.source, "every line must be whole", first_line(error))
        return
    line = 2
    while True:
        try:
            batch = reader.read_next_batch()
        except StopIteration:
            break
        except ValueError as error:  # ArrowInvalid, or a broken line that is no UTF-8
            scan.add("unreadable", scan.source, "every line must be whole", first_line(error))
            break
        lines, line = _numbered(line, batch.num_rows, broken)
        columns = {name: _utf8(scan, name, batch.column(at), lines) for name, at in where.items()}
        yield RowBlock(lines, {name: without_missing(column) for name, column in columns.items()})


def _numbered(first: int, count: int, broken: Sequence[int]) -> tuple[NDArray[np.int64], int]:
    """The lines of `count` rows from line `first` on, without the broken ones; and the line after them."""
    beside = [number for number in broken if number >= first]
    last = first + count
    for number in sorted(beside):
        if number < last:
            last += 1
    within = [number for number in beside if number < last]
    return np.setdiff1d(np.arange(first, last, dtype=np.int64), np.array(within, np.int64)), last


def _utf8(scan: Scan, name: str, column: pa.Array, lines: NDArray[np.int64]) -> pa.Array:
    try:
        return column.cast(pa.string())
    except pa.ArrowInvalid:
        texts = []
        for line, cell in zip(lines, column.to_pylist(), strict=True):
            try:
                texts.append(cell.decode())
            except UnicodeDecodeError:
                scan.add("unreadable", f"{scan.source}:{line}, {name}", "must be UTF-8 text", ascii(cell[:60]))
                texts.append(None)
        return pa.array(texts, pa.string())


def as_csv(rows: Sequence[Sequence[str]], delimiter: str = ",") -> str:
    """Rows as text that `open_text` reads back."""
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows(rows)
    return text.getvalue()
