"""A label file as a stream of blocks of rows, alike for CSV, TSV, JSON Lines and Parquet.

A few megabytes are in memory at a time, whatever the size of the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic_core import from_json

from fashion.data.forms.cells import MOST_MISTAKES, MOST_SAID, LabelTable, RowBlock, as_text, without_missing
from fashion.data.forms.delimited import open_text
from fashion.data.lists import Scan
from fashion.errors import first_line

JSON_LINES = 10_000  # lines of a block


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
        scan.add("unreadable", place, f"must be a whole {path.suffix[1:].upper()} file", first_line(error, MOST_SAID))
    return None


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
                        cells[name].append(as_text(found.get(name)))
                    except (TypeError, ValueError) as error:
                        scan.add("label", f"{place}, {name}", "must be text, a number or a list of texts", str(error))
                        mistakes += 1
                        cells[name].append(None)
            if mistakes > MOST_MISTAKES:
                return
            columns = {name: without_missing(pa.array(values, pa.string())) for name, values in cells.items()}
            yield RowBlock(np.array(numbers, np.int64), columns)


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
                        columns[name] = without_missing(_arrow_text(batch.column(name)))
                    except TypeError as error:
                        if name not in refused:
                            rule = "a column holds texts, numbers, or lists of texts"
                            scan.add("label", f"{scan.source}, {name}", rule, str(error))
                        refused.add(name)
                        columns[name] = pa.nulls(batch.num_rows, pa.string())
                yield RowBlock(np.arange(line, line + batch.num_rows, dtype=np.int64), columns)
                line += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        scan.add("unreadable", scan.source, "must be a whole PARQUET file", first_line(error, MOST_SAID))


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
        return pa.array([as_text(each) for each in column.to_pylist()], pa.string())
    raise TypeError(str(kind))


READERS: Mapping[str, Callable[[Scan, Path], LabelTable | None]] = {
    ".csv": lambda scan, path: open_text(scan, path, ","),
    ".tsv": lambda scan, path: open_text(scan, path, "\t"),
    ".jsonl": _open_json,
    ".parquet": _open_parquet,
}
