"""Standard output and standard error that can't end a command: whoever reads them may go, or lack a character."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from fashion.errors import Problem, UserError

# The other end is gone: a pipe or socket is closed, a terminal has hung up, the stream was closed before the command.
GONE = (errno.EPIPE, errno.ECONNRESET, errno.EIO, errno.ENXIO, errno.EBADF)


@contextmanager
def guarded_streams() -> Iterator[None]:
    """Inside, `sys.stdout` and `sys.stderr` drop what nobody reads any more, and write "?" for what their encoding
    lacks. Where a stream is closed it is the null device, lest the next file that is opened take its number.

    Streams that are no files, such as a notebook's, are left as they are. Raises UserError at the end where what was
    printed could not be written in full: standard output is a file on a full disk.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free, which is this one
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 (as long as the process)
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _guarded(sys.stdout, 1), _guarded(sys.stderr, 2)
    try:
        yield
    finally:
        try:
            sys.stdout.flush()  # here, where an error still finds somebody to tell
            sys.stderr.flush()
        except OSError as error:
            rule = "must take what is printed; its end is missing"
            raise UserError(Problem("standard output", rule, str(error.strerror))) from error
        finally:
            sys.stdout, sys.stderr = before


def reader_gone(stream: TextIO) -> bool:
    """Whether a stream of `guarded_streams` has found that nobody reads it any more."""
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    return isinstance(raw, GuardedFile) and raw.gone


class GuardedFile(io.RawIOBase):
    """A raw file that turns silent once its other end is gone."""

    def __init__(self, file: io.FileIO) -> None:
        super().__init__()
        self._file = file
        self.gone = False

    def write(self, data: object) -> int:
        view = memoryview(data)  # type: ignore[arg-type]  # whatever has the buffer protocol
        while not self.gone:
            try:
                written = self._file.write(view)
            except OSError as error:
                if error.errno not in GONE:
                    raise
                self.gone = True
                break
            if written is not None:
                return written
            # Somebody who shares the stream has made it non-blocking, and it is full.
            select.select([], [self._file], [])
        return view.nbytes

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return not self.gone and self._file.isatty()

    def fileno(self) -> int:
        return self._file.fileno()

    @property
    def name(self) -> object:
        return self._file.name


def _guarded(stream: TextIO | None, number: int) -> TextIO:
    """The stream, guarded; `number` is its file descriptor if Python found it closed."""
    if stream is None:
        raw, encoding, errors, lines, through = io.FileIO(number, "w", closefd=False), "utf-8", "replace", False, False
    elif isinstance(stream, io.TextIOWrapper) and (found := _file_below(stream)) is not None:
        stream.flush()
        raw, encoding, lines, through = found, stream.encoding, stream.line_buffering, stream.write_through
        errors = "replace" if stream.errors in (None, "strict") else stream.errors
    else:
        return stream
    buffer = io.BufferedWriter(GuardedFile(raw))
    return io.TextIOWrapper(buffer, encoding, errors, line_buffering=lines, write_through=through)


def _file_below(stream: io.TextIOWrapper) -> io.FileIO | None:
    """The file that the stream writes to; None for a stream in memory."""
    for below in (stream.buffer, getattr(stream.buffer, "raw", None)):  # the first under python -u
        if isinstance(below, io.FileIO):
            return below
    return None
