"""Who drives a sweep that is kept in a bucket: one process of all machines, without trusting any machine's clock.

`lease.json` names the holder, who writes it anew every few seconds. Each put is conditional on the version that was
last seen, so that only one of two succeeds. Whoever wants a lease that is held watches for `LEASE` seconds, by its own
stopwatch, whether its version changes: if it does, it is refused; otherwise it takes the lease over. A holder that
finds another's version has lost the lease and must stop. What it still writes does no harm: see
`storage.record_upload`.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from fashion.bucket.address import Address
from fashion.bucket.store import AwayError, NotThereError, Object, Store, TakenError
from fashion.errors import Problem, RunError, StorageError, printable
from fashion.files import now, parse

NAME = "lease.json"
LEASE = 20.0  # seconds without a renewal after which another machine may take it over
RENEWAL = 5.0
LOOK = 1.0  # seconds between two looks while waiting
# Seconds since its renewal for which a reader counts a lease as held; it compares the bucket's clock with its own.
SHOWN = 60.0


class Lease:
    """Within `with Lease(store, note):` this process drives the run at the store's address. A thread renews the lease.

    lost: why the lease is no longer this process's; empty while it is. note: is called with what is being waited for.

    Entering raises RunError naming the holder if another process drives the run, and StorageError as the store does.
    """

    def __init__(
        self, store: Store, note: Callable[[str], None], lease: float = LEASE, renewal: float = RENEWAL
    ) -> None:
        self._note, self._lease, self._renewal = note, lease, renewal
        self._patience = min(store.patience, lease / 2)
        self._store = self._opened(store.address)
        self._mine = {"id": uuid.uuid4().hex, "started": now(), **_process()}
        self._version, self._counter = "", 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self.lost = ""

    def _opened(self, address: Address) -> Store:
        # A renewal without an answer is given up soon and tried again.
        return Store(address, self._patience, quiet=self._lease / 2)

    def __enter__(self) -> Self:
        self._acquire()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        if not self.lost:
            # Not deleted: a late delete would remove a successor's lease. If this fails, the successor merely waits.
            with suppress(StorageError, TakenError):
                self._put(released=True)

    def _acquire(self) -> None:
        seen, since, waited = "", 0.0, False
        while True:
            try:
                content, version = self._store.get_version(NAME)
            except NotThereError:
                content, version = b"", ""
            holder = _holder(content)
            if holder.get("id") == self._mine["id"]:
                self._version = version  # the answer to its own put was lost
                return
            if waited and version != seen:
                raise self._refused(holder)
            here = _lives_here(holder)
            if here:
                raise self._refused(holder)
            free = not content or holder.get("released") or here is False
            if free or (waited and time.monotonic() - since >= self._lease):
                try:
                    self._version = self._put(version=version)
                    return
                except TakenError:
                    # Another was faster, or this put found itself after its answer was lost: the next look shows which.
                    seen, since, waited = version, time.monotonic(), True
                    continue
            if not waited:
                seen, since, waited = version, time.monotonic(), True
                self._note(
                    f"{self._store.address} was driven by {describe(holder)}, which did not release it: "
                    f"waiting {self._lease:.0f} s for a sign of life"
                )
            time.sleep(min(LOOK, self._lease / 10))

    def _refused(self, holder: dict[str, Any]) -> RunError:
        rule = f"another sweep is running in this run directory ({describe(holder)})"
        return RunError(Problem(str(self._store.address), rule, fix="Wait for it, stop it, or use another name"))

    def _put(self, version: str | None = None, released: bool = False) -> str:
        """Write the lease over `version`, by default the last one that was written; create it if there is none."""
        self._counter += 1
        content = {**self._mine, "renewed": self._counter, "released": released}
        over = self._version if version is None else version
        return self._store.put(NAME, json.dumps(content).encode(), create=not over, version=over)

    def _renew(self) -> None:
        while not self._ended.wait(self._renewal):
            try:
                self._version = self._put()
            except TakenError:
                with suppress(StorageError, NotThereError):
                    self._look()
            except AwayError:
                pass  # perhaps nobody else reaches the bucket either; the upload of the record reports it
            except StorageError:
                self._store = self._opened(self._store.address)  # the credentials may have been renewed meanwhile
            if self.lost:
                return

    def _look(self) -> None:
        """After a put that came too late, find out whether it met its own lease or another holder's."""
        content, version = self._store.get_version(NAME)
        holder = _holder(content)
        if holder.get("id") == self._mine["id"]:
            self._version = version
        else:
            self.lost = (
                f"{self._store.address}: {describe(holder)} has taken the sweep over, since this process "
                f"did not renew its lease for {self._lease:.0f} s"
            )


def driven(lease: Object | None, content: bytes) -> bool:
    """Whether, for a reader, a process drives the run: its lease is not released and was renewed recently."""
    if lease is None or not content or _holder(content).get("released"):
        return False
    return (datetime.now(UTC) - lease.modified).total_seconds() < SHOWN


def describe(holder: dict[str, Any]) -> str:
    """A lease's holder in words."""
    try:
        return printable(f"process {int(holder['pid'])} on {holder['host']!s:.100}, since {holder['started']!s:.40}")
    except (KeyError, TypeError, ValueError):
        return "its process is not known"


def _holder(content: bytes) -> dict[str, Any]:
    try:
        found = parse(content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _process() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "machine": _machine(), "process": _began(os.getpid())}


def _machine() -> str:
    """Identifies this boot of this machine and the namespace of process numbers, since containers may share a host's
    name. Empty if the system does not tell."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return f"{file.read().strip()}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _began(pid: int) -> str:
    """When a process started, in the kernel's ticks, since its number may be reused. Empty if there is no such
    process."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            state, *rest = file.read().rpartition(")")[2].split()
    except (OSError, ValueError):
        return ""
    return "" if state in ("Z", "X") else rest[18]


def _lives_here(holder: dict[str, Any]) -> bool | None:
    """Whether the holder is a live process of this machine; None if it is another machine's."""
    pid, machine = holder.get("pid"), holder.get("machine")
    if not machine or machine != _machine() or not isinstance(pid, int) or holder.get("released"):
        return None
    return _began(pid) == holder.get("process")
