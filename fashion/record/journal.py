"""The journal: one JSON line an event, on disk before anything acts on it; and the lock of its only writer.

A line counts once its newline is there. A process killed in the middle of a line never acted on that line, so a
reader leaves it alone and the next writer cuts it off. Readers need no lock and may read while another process writes.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from filelock import FileLock, Timeout

from fashion.errors import Problem, RunError, refusal
from fashion.record.validate import parse

Event = dict[str, Any]

log = logging.getLogger(__name__)


def now() -> str:
    """The time as ISO 8601 in UTC with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def write_atomic(path: Path, content: bytes) -> None:
    """Write `content` to a temporary file beside `path`, then rename it: a reader sees the old file or the new one."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)  # mkstemp's 0600 would hide a shared run directory from colleagues
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make created and renamed entries of `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _event(line: bytes) -> Event | None:
    try:
        event = parse(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) else None


def events_from(path: Path, offset: int = 0) -> Iterator[tuple[Event, int]]:
    """The events whose lines start at byte `offset` or later, one after another, each with the byte behind it, at which the
    next call goes on.

    A half-written last line is left for the next call. Raises RunError when the file is missing, has become shorter
    than `offset`, or holds a damaged line with others after it.
    """
    try:
        stream = open(path, "rb")  # noqa: SIM115 (closed below, wherever it was opened)
    except FileNotFoundError:
        raise RunError(str(Problem(str(path), "the run's journal is missing"))) from None
    except IsADirectoryError:
        raise RunError(str(Problem(str(path), "must be a file", "a folder"))) from None
    with stream:
        size = os.fstat(stream.fileno()).st_size
        if size < offset:
            rule = f"the journal has become shorter: {size} bytes, {offset} were read before"
            raise RunError(str(Problem(str(path), rule, fix="Something replaced it: open the run again")))
        stream.seek(offset)
        for line in stream:
            if not line.endswith(b"\n"):
                return
            event = _event(line)
            if event is None:
                if not stream.read(1):
                    return  # the last line: after a power cut its newline may be on disk and its beginning not
                fix = "Lines are only ever appended: restore the file from a copy, or remove the line"
                raise RunError(
                    str(Problem(f"{path}, byte {offset}", "not a JSON object", repr(line[:60].rstrip()), fix))
                )
            offset += len(line)
            yield event, offset


def read_events(path: Path, offset: int = 0) -> tuple[list[Event], int]:
    """All events that `events_from` has, and the byte at which the next call goes on."""
    events = []
    for event, end in events_from(path, offset):
        events.append(event)
        offset = end
    return events, offset


def read_journal(path: str | Path) -> list[Event]:
    """Every complete event of the journal; usable while another process writes. Raises RunError as `read_events`."""
    return read_events(Path(path))[0]


class Journal:
    """The writing end; only one may be open at a time (the driver holds the run's `RunLock`).

    Opening cuts off a half-written last line; `repaired` then says so (else it is empty).
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.repaired = ""
        self._handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            _, end = read_events(self.path)
            size = os.fstat(self._handle).st_size
            if end < size:
                os.ftruncate(self._handle, end)
                self.repaired = f"{self.path}: cut off a half-written last line ({size - end} bytes)"
                log.warning(self.repaired)
            os.fsync(self._handle)
            sync_folder(self.path.parent)
        except BaseException:
            self.close()
            raise

    def append(self, event: Event) -> None:
        """Put one line on disk (written and fsynced on return). A failed write (disk full) leaves no half line behind.

        Raises ValueError for what JSON can't hold, NaN and infinity included, and OSError from the file system.
        """
        line = json.dumps(event, allow_nan=False, separators=(",", ":")).encode() + b"\n"
        start = os.fstat(self._handle).st_size
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[os.write(self._handle, rest) :]
            os.fsync(self._handle)
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


def require_own(folder: Path, deep: bool = False) -> None:
    """Raise RunError where a run's folder, or with `deep` any folder below it, holds a symbolic link: what is written into
    a run directory, which may be a stranger's, must stay in it."""
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            if os.path.islink(path := os.path.join(place, name)):
                rule = "a run directory holds no symbolic links, since it is written to"
                raise RunError(str(Problem(path, rule, f"a link to {os.readlink(path)}", "Put a copy in its place")))
        if not deep:
            return


class RunLock:
    """At most one driver a run directory: `with RunLock(run.path): ...`; freed by the kernel when its process dies.

    Raises RunError naming the holder's process and host when it is taken, and for a run directory that holds links.
    """

    def __init__(self, run_path: str | Path) -> None:
        self.path = Path(run_path) / "lock"
        self._holder = Path(run_path) / "driver.json"
        self._lock = FileLock(self.path, thread_local=False)

    def acquire(self) -> Self:
        require_own(self.path.parent)
        try:
            # Not quite "non-blocking": `driver_alive` of a reader holds the lock for microseconds.
            self._lock.acquire(timeout=0.5, poll_interval=0.02)
        except Timeout:
            rule = f"another sweep is running in this run directory ({describe_driver(self.path.parent)})"
            raise RunError(
                str(Problem(str(self.path.parent), rule, fix="Wait for it, stop it, or use another name"))
            ) from None
        except OSError as error:
            raise self._refused(error) from error
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "started": now()}
        try:
            write_atomic(self._holder, json.dumps(holder).encode())
        except OSError as error:
            self.release()
            raise self._refused(error) from error
        return self

    def _refused(self, error: OSError) -> Exception:
        """RunError for a run directory that can't be written; any other error as it is."""
        reason = refusal(error, str(self.path.parent))
        return RunError(reason) if reason else error

    def release(self) -> None:
        if self._lock.is_locked:
            self._holder.unlink(missing_ok=True)
            self._lock.release()

    def __enter__(self) -> Self:
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def describe_driver(run_path: Path) -> str:
    """Who last took the run's lock, in words."""
    try:
        holder = parse((run_path / "driver.json").read_bytes())
        return f"process {holder['pid']} on {holder['host']}, since {holder['started']}"
    except (FileNotFoundError, ValueError, KeyError, TypeError):  # just gone, or damaged: the lock is what counts
        return "its process is not known"


def driver_alive(run_path: Path) -> bool:
    """Whether some process holds the run's lock; works on a run directory that is readable only."""
    try:
        handle = os.open(run_path / "lock", os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
