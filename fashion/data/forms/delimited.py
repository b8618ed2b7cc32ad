"""Label files as CSV and TSV: a block of rows at a time."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray

from fashion.data.forms.cells import MOST_MISTAKES, MOST_SAID, LabelTable, RowBlock, without_missing
from fashion.data.lists import Scan
from fashion.errors import first_line

BLOCK = 1 << 22  # bytes of text that are parsed at a time; no line may be longer
LONGEST_HEADER = 1 << 20  # bytes
_QUESTION_MARKS = "fashion.question_marks"


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
    source: Any = path
    if not _is_utf8(path):
        _tell_lines(scan, path, delimiter, stripped)
        source = _Legible(path)
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
            scan.add("unreadable", scan.source, "every line must be whole", first_line(error, MOST_SAID))
        return
    line, blank = 2, np.zeros(0, np.int64)
    while True:
        try:
            batch = reader.read_next_batch()
        except StopIteration:
            break
        except pa.ArrowInvalid as error:
            scan.add("unreadable", scan.source, "every line must be whole", first_line(error, MOST_SAID))
            break
        lines, line = _numbered(line, batch.num_rows, broken)
        columns = {name: without_missing(batch.column(at).cast(pa.string())) for name, at in where.items()}
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


def _question_marks(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return "?" * (error.end - error.start), error.end


codecs.register_error(_QUESTION_MARKS, _question_marks)


def _is_utf8(path: Path) -> bool:
    """Whether a file is UTF-8 text throughout. Raises OSError where it can't be read."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with open(path, "rb") as file:
        try:
            while block := file.read(BLOCK):
                decoder.decode(block)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return False
    return True


def _tell_lines(scan: Scan, path: Path, delimiter: str, names: Sequence[str]) -> None:
    """Add a problem for each line below the first that is not UTF-8, with the cell that is not where that can be
    told."""
    number = told = 0
    with open(path, "rb") as file:
        while (line := file.readline(BLOCK)) and told < MOST_MISTAKES:
            number += 1
            try:
                line.decode()
            except UnicodeDecodeError as error:
                if number > 1:
                    place, value = _cell(line, error, delimiter, names)
                    scan.add("unreadable", f"{scan.source}:{number}{place}", "must be UTF-8 text", value)
                    told += 1


def _cell(line: bytes, error: UnicodeDecodeError, delimiter: str, names: Sequence[str]) -> tuple[str, str]:
    """The name of the column for a message, and the cell; of a line without a cell for each column the byte."""
    try:
        cells = next(csv.reader([line.decode("utf-8", "surrogateescape").rstrip("\r\n")], delimiter=delimiter), [])
    except csv.Error:
        cells = []
    bad = [index for index, cell in enumerate(cells) if any("\udc80" <= each <= "\udcff" for each in cell)]
    if len(cells) != len(names) or not bad:
        return "", f"byte {line[error.start]:#04x}"
    return f", {names[bad[0]]}", ascii(cells[bad[0]].encode("utf-8", "surrogateescape")[:60])


class _Legible(io.RawIOBase):
    """A file with question marks in place of the bytes that are not UTF-8: pyarrow hands broken lines over as text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = open(path, "rb")  # noqa: SIM115 (closed with this)
        self._decoder = codecs.getincrementaldecoder("utf-8")(_QUESTION_MARKS)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes, or all; none at the end."""
        while True:
            # A character's first bytes, at most three, may be waiting for its last.
            block = self._file.read(max(1, size - 3) if size >= 0 else -1)
            text = self._decoder.decode(block, final=not block)
            if text or not block:
                return text.encode()

    def close(self) -> None:
        self._file.close()
        super().close()


def as_csv(rows: Sequence[Sequence[str]], delimiter: str = ",") -> str:
    """Rows as text that `open_text` reads back."""
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows(rows)
    return text.getvalue()
