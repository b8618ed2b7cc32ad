"""The lock that gives a run directory a single writer, and who holds it."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from pathlib import Path
from types import TracebackType
from typing import Self

from filelock import FileLock, Timeout

from fashion.errors import Problem, RunError, refusal
from fashion.files import now, parse, require_own, write_atomic


class RunLock:
    """Allows one driver per run directory: `with RunLock(run.path): ...`. The kernel frees it when its process dies.

    Raises RunError where it is taken, naming the holder's process and host, and for a run directory that holds links or
    can't be written.
    """

    def __init__(self, run_path: str | Path) -> None:
        self.path = Path(run_path) / "lock"
        self._holder = Path(run_path) / "driver.json"
        self._lock = FileLock(self.path, thread_local=False)

    def acquire(self) -> Self:
        require_own(self.path.parent)
        try:
            # A short timeout instead of none, since a reader's `driver_alive` holds the lock for microseconds.
            self._lock.acquire(timeout=0.5, poll_interval=0.02)
        except Timeout:
            rule = f"another sweep is running in this run directory ({describe_driver(self.path.parent)})"
            raise RunError(
                Problem(str(self.path.parent), rule, fix="Wait for it, stop it, or use another name")
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
    """Who last took the run's lock, in words for the user."""
    try:
        holder = parse((run_path / "driver.json").read_bytes())
        return f"process {holder['pid']} on {holder['host']}, since {holder['started']}"
    except (FileNotFoundError, ValueError, KeyError, TypeError):  # just removed, or damaged: only the lock counts
        return "its process is not known"


def driver_alive(run_path: Path) -> bool:
    """Whether some process holds the run's lock. Works on a read-only run directory, too."""
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
