"""Text that is not UTF-8, in a label file: each such line is told, and the rest of the file can still be read."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Sequence
from pathlib import Path

from fashion.data.lists import Scan

BLOCK = 1 << 22  # bytes of text that are read or parsed at a time; no line may be longer
MOST_MISTAKES = 10_000  # of a file, after which it is not read on
_QUESTION_MARKS = "fashion.question_marks"


def _question_marks(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return "?" * (error.end - error.start), error.end


codecs.register_error(_QUESTION_MARKS, _question_marks)


def is_utf8(path: Path) -> bool:
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


def tell_lines(scan: Scan, path: Path, delimiter: str, names: Sequence[str]) -> None:
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


class Legible(io.RawIOBase):
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
