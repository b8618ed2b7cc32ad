"""The journal: one line of JSON per event, on disk before anything acts on it.

A line counts once its newline is there. A process killed in the middle of a line never acted on that line, so readers
ignore it and the next writer cuts it off. Readers need no lock and may read while another process writes.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fashion.errors import Problem, RunError
from fashion.files import parse, sync, sync_folder

Event = dict[str, Any]

log = logging.getLogger(__name__)


def _event(line: bytes) -> Event | None:
    try:
        event = parse(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) else None


def events_from(path: Path, offset: int = 0) -> Iterator[tuple[Event, int]]:
    """The events whose lines start at byte `offset` or later, each with the offset of the line after it.

    From there the next call goes on. A half-written last line is left to it. Raises RunError where the file is missing,
    has become shorter than `offset`, or holds a damaged line with others after it.
    """
    try:
        stream = open(path, "rb")  # noqa: SIM115 (the `with` below closes it)
    except FileNotFoundError:
        raise RunError(Problem(str(path), "the run's journal is missing")) from None
    except IsADirectoryError:
        raise RunError(Problem(str(path), "must be a file", "a folder")) from None
    with stream:
        size = os.fstat(stream.fileno()).st_size
        if size < offset:
            rule = f"the journal has become shorter: {size} bytes, {offset} were read before"
            raise RunError(Problem(str(path), rule, fix="Something replaced it: open the run again"))
        stream.seek(offset)
        for line in stream:
            if not line.endswith(b"\n"):
                return
            event = _event(line)
            if event is None:
                if not stream.read(1):
                    return  # the last line: after a power cut its newline may be on disk without its beginning
                fix = "Lines are only ever appended: restore the file from a copy, or remove the line"
                raise RunError(Problem(f"{path}, byte {offset}", "not a JSON object", repr(line[:60].rstrip()), fix))
            offset += len(line)
            yield event, offset


def read_events(path: Path, offset: int = 0) -> tuple[list[Event], int]:
    """All events of `events_from`, and the offset at which the next call goes on."""
    events = []
    for event, end in events_from(path, offset):
        events.append(event)
        offset = end
    return events, offset


def read_journal(path: str | Path) -> list[Event]:
    """Every complete event of the journal, even while another process writes. Raises RunError like `events_from`."""
    return read_events(Path(path))[0]


class Journal:
    """The writer of a journal. Only one may be open at a time: the driver holds the run's `RunLock`.

    Opening it cuts off a half-written last line. `repaired` says so then, and is empty otherwise.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.repaired = ""
        self._handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            _, end = read_events(self.path)
            size = os.fstat(self._handle).st_size
            if end < size:
                os.ftruncate(self._handle, end)
                self.repaired = f"{self.path}: cut off a half-written last line ({size - end} bytes)"
                log.warning(self.repaired)
            sync(self._handle, self.path)
            sync_folder(self.path.parent)
        except BaseException:
            self.close()
            raise

    def append(self, event: Event) -> None:
        """Append one line, which is on disk (fsync) on return. A failed write (full disk) leaves no half line behind.

        Raises ValueError for what JSON can't hold, such as NaN and infinity, and OSError from the file system.
        """
        line = json.dumps(event, allow_nan=False, separators=(",", ":")).encode() + b"\n"
        start = os.fstat(self._handle).st_size
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[os.write(self._handle, rest) :]
            sync(self._handle, self.path)
        except OSError:
            os.ftruncate(self._handle, start)
            raise

    def close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
