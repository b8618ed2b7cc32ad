"""Who drives a sweep that is kept in a bucket: one process of all machines, without trusting any machine's clock.

`lease.json` names the holder, who puts it anew every few seconds. Each put is conditional on the version that was last
seen, so that of two only one succeeds. Whoever wants a lease that is held looks whether its version changes for
`LEASE` seconds by its own stopwatch: if so it is refused, else it takes the lease over. A holder that finds another's
version there has lost it, and must stop. What it still writes does no harm: see `mirror`.
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
LOOK = 1.0  # between two looks of one that waits
# A reader takes a lease that was renewed so long ago for held; it compares the bucket's clock with its machine's.
SHOWN = 60.0


class Lease:
    """`with Lease(store, note): ...`: this process drives the run in the store's prefix. Renewed by a thread.

    lost: why it is no longer this process's, empty while it is. note: is told what is waited for.

    Entering raises RunError naming the holder when another process drives it, StorageError as the store.
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
        # A renewal that is not answered is given up soon, for another try.
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
            # Not deleted: a late delete would take a successor's. Who finds none released waits, that is all.
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
                    # By another that was faster, or by this very put, whose first answer was lost: the next look tells.
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
        """Put the lease over `version`, the last one of its own by default; with none, create it."""
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
                pass  # perhaps nobody else reaches the bucket either; the mirror tells of it
            except StorageError:
                self._store = self._opened(self._store.address)  # with credentials that were renewed meanwhile, perhaps
            if self.lost:
                return

    def _look(self) -> None:
        """After a put that came too late: too late for its own answer, or for another holder?"""
        content, version = self._store.get_version(NAME)
        holder = _holder(content)
        if holder.get("id") == self._mine["id"]:
            self._version = version
        else:
            self.lost = (
                f"{self._store.address}: {describe(holder)} has taken the sweep over, since this process was not heard of "
                f"for {self._lease:.0f} s"
            )


def driven(lease: Object | None, content: bytes) -> bool:
    """Whether, for a reader, somebody drives the run: its lease is not released and was renewed of late."""
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
    """This boot of this machine, and the name space of process numbers: containers may share a host's name. Empty where
    the system does not say."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return f"{file.read().strip()}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _began(pid: int) -> str:
    """When a process began, in the kernel's ticks: a number may be given to another process. Empty if there is none."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            state, *rest = file.read().rpartition(")")[2].split()
    except (OSError, ValueError):
        return ""
    return "" if state in ("Z", "X") else rest[18]


def _lives_here(holder: dict[str, Any]) -> bool | None:
    """Whether the holder is a live process of this machine; None when it is another machine's."""
    pid, machine = holder.get("pid"), holder.get("machine")
    if not machine or machine != _machine() or not isinstance(pid, int) or holder.get("released"):
        return None
    return _began(pid) == holder.get("process")
