"""The lock that gives a run directory a single writer, and who holds it."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fashion.errors import Problem, RunError, refusal
from fashion.files import KernelLock, lacks_feature, now, parse, require_own, write_atomic

HOLDER = "driver.json"


class RunLock:
    """Allows one driver per run directory: `with RunLock(run.path): ...`. The kernel frees it when its process dies.

    A file system without locks is told of once (`KernelLock`); there `driver.json` alone keeps a second command out.
    Raises RunError where the lock is taken, naming the holder's process and host, and for a run directory that holds
    links or can't be written.
    """

    def __init__(self, run_path: str | Path) -> None:
        self.path = Path(run_path) / "lock"
        self._holder = Path(run_path) / HOLDER
        self._lock = KernelLock(self.path)

    def acquire(self) -> Self:
        folder = self.path.parent
        require_own(folder)
        try:
            # A short timeout instead of none, since a reader's `driver_alive` holds the lock for microseconds.
            self._lock.acquire(timeout=0.5)
        except TimeoutError:
            rule = f"another sweep is running in this run directory ({describe_driver(folder)})"
            raise RunError(Problem(str(folder), rule, fix="Wait for it, stop it, or use another name")) from None
        except OSError as error:
            raise self._refused(error) from error
        if self._lock.missing and _may_live(folder):
            self._lock.release()
            rule = f"another sweep may be running in this run directory ({describe_driver(folder)})"
            fix = f"Wait for it, or stop it. If it has ended, remove {self._holder}: this file system has no locks"
            raise RunError(Problem(str(folder), rule, fix=fix))
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "started": now()}
        try:
            write_atomic(self._holder, json.dumps(holder).encode())
        except OSError as error:
            self._lock.release()
            raise self._refused(error) from error
        return self

    def _refused(self, error: OSError) -> Exception:
        """RunError for a run directory that can't be written; any other error as it is."""
        reason = refusal(error, str(self.path.parent))
        return RunError(reason) if reason else error

    def release(self) -> None:
        if self._lock.held:
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
    holder = _holder(run_path)
    if holder is None:
        return "its process is not known"
    return f"process {holder['pid']} on {holder['host']}, since {holder['started']}"


def driver_alive(run_path: Path) -> bool:
    """Whether some process holds the run's lock. Works on a read-only run directory, too, and where there are no
    locks: there the process that `driver.json` names is looked for."""
    try:
        handle = os.open(run_path / "lock", os.O_RDONLY)
    except FileNotFoundError:
        return False
    except PermissionError:
        return _may_live(run_path)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as error:
        if not lacks_feature(error):
            raise
        return _may_live(run_path)
    finally:
        os.close(handle)
    return False


def _holder(run_path: Path) -> dict[str, Any] | None:
    """What `driver.json` says; None where it was just removed, or is damaged: only the lock counts then."""
    try:
        holder: dict[str, Any] = parse((run_path / HOLDER).read_bytes())
        return {key: holder[key] for key in ("pid", "host", "started")}
    except (FileNotFoundError, PermissionError, ValueError, KeyError, TypeError):
        return None


def _may_live(run_path: Path) -> bool:
    """Whether the process that `driver.json` names may still run: another machine's can't be looked for."""
    holder = _holder(run_path)
    if holder is None:
        return False
    if holder["host"] != socket.gethostname():
        return True
    try:
        os.kill(int(holder["pid"]), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:  # another user's
        return True
    return int(holder["pid"]) != os.getpid()
