"""Cache files of one array that has a row for each image: opened where they are whole, filled in place otherwise.

A row counts as done once its checksum is there, so that what an interrupted process has computed is gone on with.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fashion.data.cache.arrow_files import (
    check_seal,
    positions,
    seal_path,
    temporary_path,
    write_frame,
    write_seal,
    zeros,
)
from fashion.data.cache.entries import make_room
from fashion.data.cache.use import keep_open
from fashion.data.contents import require_room

SUMS = "crc32"  # the column of checksums, before that of the rows
SAMPLED = 16  # rows whose checksums are compared whenever a file is opened

Progress = Callable[[int, int], None]


def whole_array(path: Path, column: str, count: int) -> NDArray[Any] | None:
    """The array of a file, memory-mapped, if it is whole and has `count` rows; None where it must be computed."""
    if not path.exists():
        return None
    try:
        found = open_array(path, column)
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
        return None  # a damaged cache is computed again; it is no reason to stop
    return found if len(found) == count else None


def open_array(path: Path, column: str) -> NDArray[Any]:
    """The array of a file, memory-mapped. Raises one of what `whole_array` catches where it is not whole."""
    found = path.stat()
    return _mapped(path, column, found.st_mtime_ns, found.st_ino)


@dataclass(frozen=True)
class Rows:
    """How many rows a file has, and the shape and type of each."""

    count: int
    shape: tuple[int, ...]
    dtype: type[np.generic]

    @property
    def width(self) -> int:
        """Values of a row."""
        return math.prod(self.shape)

    @property
    def size(self) -> int:
        """Bytes of all rows."""
        return self.count * self.width * np.dtype(self.dtype).itemsize

    def empty(self) -> pa.Array:
        """A column of zeros, which take no memory: pixels as bytes of a fixed length, numbers as lists of one."""
        if self.dtype is np.uint8:
            return pa.FixedSizeBinaryArray.from_buffers(pa.binary(self.width), self.count, [None, zeros(self.size)])
        kind = pa.from_numpy_dtype(np.dtype(self.dtype))
        values = pa.Array.from_buffers(kind, self.count * self.width, [None, zeros(self.size)])
        return pa.FixedSizeListArray.from_arrays(values, self.width)


@lru_cache(maxsize=256)
def _mapped(path: Path, column: str, written: int, inode: int) -> NDArray[Any]:
    """Mapped once in a warm process."""
    check_seal(path)  # first, since Arrow follows whatever offsets it finds, even out of the mapping
    reader = pa.ipc.open_file(pa.memory_map(str(path)))
    batch, metadata = reader.get_batch(0), reader.schema.metadata or {}
    shape = json.loads(metadata.get(b"shape", b"[-1]"))
    values: NDArray[Any] = batch.column(column).flatten().to_numpy().reshape(len(batch), *shape)
    if SUMS in batch.schema.names:  # files of features lacked them once: their seal is of every byte
        sums = batch.column(SUMS).to_numpy()
        if any(zlib.crc32(values[each]) != sums[each] for each in np.linspace(0, len(values) - 1, SAMPLED).astype(int)):
            raise ValueError("its checksums differ")
    keep_open(path, values)
    return values


@dataclass(frozen=True)
class Unfinished:
    """A file that is being written: its rows (N, ...), and the CRC-32 of each row's bytes (N,), both mapped. Its
    process holds the file's lock."""

    path: Path
    temporary: Path
    column: str
    rows: np.memmap[Any, np.dtype[Any]]
    sums: np.memmap[Any, np.dtype[np.uint32]]

    @classmethod
    def begin(
        cls,
        what: str,
        path: Path,
        column: str,
        rows: Rows,
        metadata: Mapping[str, str],
        others: Mapping[str, pa.Array] | None = None,
    ) -> Self:
        """The file as an interrupted process has left it, or a new one whose rows are zeros.

        what: the cache, for people. column: that of the rows. metadata, others: what else the file has, columns of as
        many rows; `path` tells all of it apart from what differs. Raises BlockedError where there is no room.
        """
        if (left := cls.left(path, column, rows)) is not None:
            return left
        make_room(what, rows.size, path)
        require_room(what, rows.size, path.parent)
        temporary = temporary_path(path)
        columns = {**(others or {}), SUMS: pa.array(np.zeros(rows.count, np.uint32)), column: rows.empty()}
        try:
            sums_at, rows_at = write_frame(temporary, columns, (SUMS, column), metadata)
            # What is yet to be filled in is left out.
            write_seal(temporary, temporary, sums_at, rows_at + rows.size - sums_at)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return cls._mapped(path, column, rows)

    @classmethod
    def left(cls, path: Path, column: str, rows: Rows) -> Self | None:
        """The file as an interrupted process has left it; None where there is nothing that can be used."""
        try:
            check_seal(temporary_path(path))
            with pa.memory_map(str(temporary_path(path))) as source:
                batch = pa.ipc.open_file(source).get_batch(0)
                alike = len(batch) == rows.count and batch.column(column).type == rows.empty().type
            return cls._mapped(path, column, rows) if alike else None
        except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
            return None

    @classmethod
    def _mapped(cls, path: Path, column: str, rows: Rows) -> Self:
        temporary = temporary_path(path)
        sums_at, rows_at = positions(temporary, (SUMS, column))
        mapped = np.memmap(temporary, rows.dtype, "r+", rows_at, (rows.count, *rows.shape))
        return cls(path, temporary, column, mapped, np.memmap(temporary, np.uint32, "r+", sums_at, (rows.count,)))

    def put(self, at: int, found: NDArray[Any]) -> None:
        """Write rows (n, ...) from row `at` on."""
        self.rows[at : at + len(found)] = found
        self.sums[at : at + len(found)] = [zlib.crc32(each) for each in self.rows[at : at + len(found)]]

    def done(self, progress: Progress | None = None) -> int:
        """How many rows, from the first on, are whole. Those that were not begun have a checksum of 0.

        They are read for it, since a machine that went down may have kept a checksum and not its row; `progress` is
        called meanwhile.
        """
        count = 0
        while count < len(self.rows) and self.sums[count] and zlib.crc32(self.rows[count]) == self.sums[count]:
            count += 1
            if progress is not None:
                progress(count, len(self.rows))
        return count

    def finish(self, sealed: bool = False) -> None:
        """Give the whole file its name. sealed: the seal is of the rows, too, which are read for it."""
        self.rows.flush()
        self.sums.flush()
        if sealed:
            write_seal(self.path, self.temporary)
        else:
            (rows_at,) = positions(self.temporary, (self.column,))
            write_seal(self.path, self.temporary, rows_at, self.rows.nbytes)
        self.temporary.replace(self.path)
        seal_path(self.temporary).unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove what was written."""
        self.temporary.unlink(missing_ok=True)
        seal_path(self.temporary).unlink(missing_ok=True)
