"""A label file as a stream of blocks of rows, alike for CSV, TSV, JSON Lines and Parquet.

Every value becomes text as a CSV has it: 3.0 is "3", true is "true", a list of names is joined by "|", and what is
empty, null or NaN is null. A few megabytes are in memory at a time.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic_core import from_json

from fashion.data.forms.encoding import BLOCK, MOST_MISTAKES, Legible, is_utf8, tell_lines
from fashion.data.lists import Scan

JSON_LINES = 10_000  # lines of a block
LONGEST_HEADER = 1 << 20  # bytes
NONE_OF_THEM = "|"  # a multi-label cell: it is known that no class holds
MISSING_WORDS = ("", "null", "NaN", "nan")


@dataclass(frozen=True)
class RowBlock:
    """Rows that follow one another: the line of each, counted from 1, and their cells as text, null where missing."""

    lines: NDArray[np.int64]
    columns: Mapping[str, pa.Array]


@dataclass(frozen=True)
class LabelTable:
    """A label file that was opened. names: its columns. blocks: reads the columns that it is asked for."""

    names: tuple[str, ...]
    blocks: Callable[[Sequence[str]], Iterator[RowBlock]]


def open_table(scan: Scan, path: Path) -> LabelTable | None:
    """Open a label file by its ending. None, and a problem in `scan`, where it can't be read.

    Broken lines become problems while the blocks are read, and are left out of them.
    """
    place = scan.source
    try:
        return READERS[path.suffix.lower()](scan, path)
    except OSError as error:
        scan.add("unreadable", place, "the file must be readable", str(error.strerror or error))
    except UnicodeDecodeError as error:
        scan.add("unreadable", place, "must be UTF-8 text", f"byte {error.object[error.start]:#04x} at {error.start}")
    except pa.ArrowException as error:
        scan.add("unreadable", place, f"must be a whole {path.suffix[1:].upper()} file", _first_line(error))
    return None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:200]


# -- CSV and TSV


def _open_text(scan: Scan, path: Path, delimiter: str) -> LabelTable | None:
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
    source: Any = path
    if not is_utf8(path):
        tell_lines(scan, path, delimiter, stripped)
        source = Legible(path)
    try:
        reader = pa.csv.open_csv(
            source,
            pa.csv.ReadOptions(use_threads=False, block_size=BLOCK, column_names=unique, skip_rows=1),
            pa.csv.ParseOptions(delimiter=delimiter, invalid_row_handler=on_broken, ignore_empty_lines=False),
            pa.csv.ConvertOptions(
                column_types=dict.fromkeys(where.values(), pa.binary()),
                include_columns=list(dict.fromkeys(where.values())),
                strings_can_be_null=False,
            ),
        )
    except pa.ArrowInvalid as error:
        if "Empty CSV" not in str(error):  # a header alone has no rows
            scan.add("unreadable", scan.source, "every line must be whole", _first_line(error))
        return
    line, blank = 2, np.zeros(0, np.int64)
    while True:
        try:
            batch = reader.read_next_batch()
        except StopIteration:
            break
        except pa.ArrowInvalid as error:
            scan.add("unreadable", scan.source, "every line must be whole", _first_line(error))
            break
        lines, line = _numbered(line, batch.num_rows, broken)
        columns = {name: batch.column(at).cast(pa.string()) for name, at in where.items()}
        columns = {name: _without_missing(column) for name, column in columns.items()}
        filled = np.any([column.is_valid().to_numpy(zero_copy_only=False) for column in columns.values()], axis=0)
        end = int(np.flatnonzero(filled)[-1]) + 1 if filled.any() else 0
        if end and len(blank):
            yield RowBlock(blank, {name: pa.nulls(len(blank), pa.string()) for name in columns})
            blank = blank[:0]
        if end:
            yield RowBlock(lines[:end], {name: column.slice(0, end) for name, column in columns.items()})
        blank = np.concatenate([blank, lines[end:]])  # at the end of a file, lines without content are no mistake


def _numbered(first: int, count: int, broken: Sequence[int]) -> tuple[NDArray[np.int64], int]:
    """The lines of `count` rows from line `first` on, without the broken ones; and the line after them."""
    beside = [number for number in broken if number >= first]
    last = first + count
    for number in sorted(beside):
        if number < last:
            last += 1
    within = [number for number in beside if number < last]
    return np.setdiff1d(np.arange(first, last, dtype=np.int64), np.array(within, np.int64)), last


def _without_missing(column: pa.Array) -> pa.Array:
    column = pc.utf8_trim_whitespace(column)
    return pc.if_else(pc.is_in(column, pa.array(MISSING_WORDS)), pa.scalar(None, pa.string()), column)


# -- JSON Lines


def _open_json(scan: Scan, path: Path) -> LabelTable | None:
    names: dict[str, None] = {}
    with open(path, "rb") as file:
        for line in islice(file, JSON_LINES):
            try:
                found = from_json(line)
            except ValueError:
                continue  # told when the rows are read
            if isinstance(found, dict):
                names.update(dict.fromkeys(map(str, found)))
    if not names:
        scan.add(
            "unreadable", f"{scan.source}:1", 'every line is an object such as {"file_name": "1.jpg", "size": "s"}'
        )
        return None
    return LabelTable(tuple(names), lambda wanted: _json(scan, path, set(names), wanted))


def _json(scan: Scan, path: Path, known: set[str], wanted: Sequence[str]) -> Iterator[RowBlock]:
    number, mistakes = 0, 0
    with open(path, "rb") as file:
        while lines := list(islice(file, JSON_LINES)):
            numbers: list[int] = []
            cells: dict[str, list[str | None]] = {name: [] for name in wanted}
            for line in lines:
                number += 1
                place = f"{scan.source}:{number}"
                try:
                    found = from_json(line) if line.strip() else None
                except ValueError as error:
                    found = str(error)
                if not isinstance(found, dict):
                    value = "an empty line" if found is None else str(found)[:80]
                    if line.strip() or found is not None:
                        scan.add("unreadable", place, "every line is one JSON object", value)
                        mistakes += 1
                    continue
                if new := found.keys() - known:
                    known |= new
                    rule = f"the first {JSON_LINES:,} lines name every column"
                    scan.add("columns", place, rule, ", ".join(sorted(map(repr, new))))
                numbers.append(number)
                for name in wanted:
                    try:
                        cells[name].append(_as_text(found.get(name)))
                    except (TypeError, ValueError) as error:
                        scan.add("label", f"{place}, {name}", "must be text, a number or a list of texts", str(error))
                        mistakes += 1
                        cells[name].append(None)
            if mistakes > MOST_MISTAKES:
                return
            columns = {name: _without_missing(pa.array(values, pa.string())) for name, values in cells.items()}
            yield RowBlock(np.array(numbers, np.int64), columns)


def _as_text(value: Any) -> str | None:
    """A JSON value as a cell of a CSV has it. Raises TypeError for an object, or a list of anything but values."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str):
        value.encode()  # a lone surrogate is no text: UnicodeEncodeError is a ValueError
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    if isinstance(value, list) and not any(isinstance(each, list | dict) or each is None for each in value):
        return "|".join([*(_as_text(each) or "" for each in value), ""]) or NONE_OF_THEM
    raise TypeError(str(value)[:60])


# -- Parquet


def _open_parquet(scan: Scan, path: Path) -> LabelTable | None:
    schema = pq.read_schema(path)
    return LabelTable(tuple(schema.names), lambda wanted: _parquet(scan, path, wanted))


def _parquet(scan: Scan, path: Path, wanted: Sequence[str]) -> Iterator[RowBlock]:
    line = 1
    refused: set[str] = set()
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=65_536, columns=list(wanted)):
                columns = {}
                for name in wanted:
                    try:
                        columns[name] = _without_missing(_arrow_text(batch.column(name)))
                    except TypeError as error:
                        if name not in refused:
                            rule = "a column holds texts, numbers, or lists of texts"
                            scan.add("label", f"{scan.source}, {name}", rule, str(error))
                        refused.add(name)
                        columns[name] = pa.nulls(batch.num_rows, pa.string())
                yield RowBlock(np.arange(line, line + batch.num_rows, dtype=np.int64), columns)
                line += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        scan.add("unreadable", scan.source, "must be a whole PARQUET file", _first_line(error))


def _arrow_text(column: pa.Array) -> pa.Array:
    """A column of any type as text. Raises TypeError for one that has no such form."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _arrow_text(column.dictionary_decode())
    if pa.types.is_null(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return column.cast(pa.string())
    if pa.types.is_string_view(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return column.cast(pa.string())
    if pa.types.is_floating(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.array([_as_text(each) for each in column.to_pylist()], pa.string())
    raise TypeError(str(kind))


READERS: Mapping[str, Callable[[Scan, Path], LabelTable | None]] = {
    ".csv": lambda scan, path: _open_text(scan, path, ","),
    ".tsv": lambda scan, path: _open_text(scan, path, "\t"),
    ".jsonl": _open_json,
    ".parquet": _open_parquet,
}


def as_csv(rows: Sequence[Sequence[str]], delimiter: str = ",") -> str:
    """Rows as text that `open_table` reads back."""
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows(rows)
    return text.getvalue()
