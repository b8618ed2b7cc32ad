"""Whole and durable files, written to a temporary path and then renamed, and JSON that a stranger may have written."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import math
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from fashion.errors import Problem, RunError

# What file systems answer that lack a feature: SMB and FUSE to the fsync of a folder, NFS without its lock service.
LACKING = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOTTY, errno.ENOLCK)
LOCK_LOOK_SECONDS = 0.02
CONTROL_GROUP = Path("/sys/fs/cgroup")  # a container sees its own there

Result = TypeVar("Result")
log = logging.getLogger(__name__)
_told = set[tuple[int, str]]()  # file systems and the features that they lack


def now() -> str:
    """The current time in UTC as ISO 8601 with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def new_file(path: Path) -> tuple[int, Path]:
    """Create a temporary file beside `path`, with the rights that the umask gives. Returns its descriptor and path.

    `tempfile` makes files that nobody else can read, and some file systems (exFAT, many network shares) refuse to
    change that afterwards.
    """
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        with suppress(FileExistsError):
            return os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666), temporary


def restore_rights(path: Path, mode: int) -> None:
    """Give a file the rights that it had before a library made it anew, where the file system has rights to give."""
    if path.stat().st_mode != mode:
        try:
            path.chmod(mode)
        except OSError as error:
            if error.errno != errno.EPERM and not lacks_feature(error):
                raise


def new_folder(path: Path) -> Path:
    """Create a temporary folder beside `path`, with the rights that the umask gives."""
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        with suppress(FileExistsError):
            temporary.mkdir()
            return temporary


def write_atomic(path: Path, content: bytes) -> None:
    """Write `content` to a temporary file beside `path`, then rename it: readers see the old file or the new one.

    The file survives a power cut once this returns. Raises OSError, and then leaves the old file in place.
    """
    handle, temporary = new_file(path)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            sync(stream.fileno(), path)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync(handle: int, path: Path) -> None:
    """Let what was written to an open file or folder, which is at `path`, survive a power cut. Where the file system
    can't, that is told once."""
    try:
        os.fsync(handle)
    except OSError as error:
        _without(error, path, "writes to the disk on request (fsync)", "A power cut may cost what was just recorded")


def sync_folder(folder: Path) -> None:
    """Let created and renamed entries of `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        sync(handle, folder)
    finally:
        os.close(handle)


class KernelLock:
    """A lock on a file, for one process at a time: `with KernelLock(path): ...`. The kernel frees it when its holder
    dies. The file stays.

    missing: whether the file system has no locks (some NFS and FUSE mounts). It is then held without, which is told
    once. Raises OSError where the file can't be made or opened.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.missing = False
        self._handle = -1

    def acquire(self, timeout: float = math.inf) -> Self:
        """Wait for the lock. Raises TimeoutError where another process still holds it after `timeout` seconds."""
        end = time.monotonic() + timeout
        while not self._taken():
            if time.monotonic() >= end:
                raise TimeoutError(errno.ETIMEDOUT, "another process holds the lock", str(self.path))
            time.sleep(LOCK_LOOK_SECONDS)
        return self

    def _taken(self) -> bool:
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its holder may have removed the file, with the folder around it, and another process made a new one.
            taken = os.fstat(handle).st_nlink > 0
        except BlockingIOError:
            taken = False
        except OSError as error:
            try:
                _without(error, self.path, "locks", "Two commands that write here at once are not kept apart")
            except BaseException:
                os.close(handle)
                raise
            taken = self.missing = True
        if taken:
            self._handle = handle
        else:
            os.close(handle)
        return taken

    @property
    def held(self) -> bool:
        return self._handle >= 0

    def release(self) -> None:
        """Free the lock. Without effect where it is not held."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def __enter__(self) -> Self:
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def lacks_feature(error: OSError) -> bool:
    """Whether the file system does not offer what it was asked for."""
    return error.errno in LACKING


def _without(error: OSError, path: Path, feature: str, lost: str) -> None:
    """Say once that the file system at `path` lacks a feature, and what is lost. Raises any other error again."""
    if not lacks_feature(error):
        raise error
    if (found := (os.stat(path.parent).st_dev, feature)) not in _told:
        _told.add(found)
        log.warning("%s: this file system has no %s. %s.", path, feature, lost)


def rename_folder(source: Path, target: Path, last: str) -> None:
    """Give a new folder of files its name. Where the file system can't rename folders (some mounted object stores), its
    files are moved one by one, at the end the one called `last`, by which readers know a whole folder.

    Raises OSError, FileExistsError among others where there is something at `target` already.
    """
    try:
        os.rename(source, target)
    except OSError as error:
        if not lacks_feature(error) and error.errno != errno.EXDEV:
            raise
        target.mkdir()
        try:
            for path in sorted(source.iterdir(), key=lambda path: (path.name == last, path.name)):
                os.replace(path, target / path.name)
        except BaseException:
            shutil.rmtree(target, ignore_errors=True)
            raise
        source.rmdir()


def usable_cpus() -> int:
    """How many CPUs this process may use, at least 1: those that it is bound to, within a container's quota of their
    time (half a CPU is one)."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(math.ceil(min(float(bound), _quota())), 1)


def submitted(pool: ThreadPoolExecutor, work: Callable[..., Result], *arguments: Any) -> Future[Result]:
    """As `pool.submit`, of a pool that is open. Raises SystemExit where Python itself is ending.

    It then closes every pool, while threads other than the main one go on: a trial whose process is told to end has not
    failed.
    """
    try:
        return pool.submit(work, *arguments)
    except RuntimeError as error:
        if not _python_is_ending():
            raise  # somebody has closed this pool alone, which is a mistake
        raise SystemExit(f"Python is ending: {error}") from error


def _python_is_ending() -> bool:
    """Whether even a new pool takes no work any more."""
    with ThreadPoolExecutor(1) as fresh:
        try:
            fresh.submit(int)
        except RuntimeError:
            return True
    return False


def visible_gpus() -> int:
    """How many NVIDIA GPUs the machine shows this process, whether or not torch can use them."""
    names = os.listdir("/dev") if os.path.isdir("/dev") else []
    there = sum(bool(re.fullmatch("nvidia[0-9]+", name)) for name in names)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return there if visible is None else min(there, len([one for one in visible.split(",") if one not in ("", "-1")]))


def _quota() -> float:
    """How many CPUs' time the control group may take, infinite where there is no limit."""
    with suppress(OSError, ValueError):  # version 2: "max 100000" or "50000 100000"
        quota, period = (CONTROL_GROUP / "cpu.max").read_text().split()
        return int(quota) / int(period)
    with suppress(OSError, ValueError):  # version 1: -1 where there is none
        quota, period = ((CONTROL_GROUP / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    return math.inf


def remove_tree(folder: Path, seconds: float = 3.0) -> bool:
    """Remove a folder in which processes that are just ending may still write. Returns whether it is gone, which is
    tried for `seconds`."""
    end = time.monotonic() + seconds
    while True:
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.lexists(folder):
            return True
        if time.monotonic() > end:
            return False
        time.sleep(0.05)


def require_own(folder: Path, deep: bool = False) -> None:
    """Raise RunError where a run's folder, or with `deep` any folder below it, holds a symbolic link.

    A run directory may come from a stranger, and what is written to it must stay in it.
    """
    for directory, folders, files in os.walk(folder):
        for name in (*folders, *files):
            if os.path.islink(path := os.path.join(directory, name)):
                rule = "a run directory holds no symbolic links, since it is written to"
                raise RunError(Problem(path, rule, f"a link to {os.readlink(path)}", "Replace the link with a copy"))
        if not deep:
            return


Rule = Callable[[Any], bool]  # whether a value is acceptable


def parse(content: bytes | str) -> Any:
    """A JSON value. Raises ValueError, also where brackets are nested too deeply."""
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("lists or objects are nested too deeply") from None


def whole(least: int) -> Rule:
    """The rule of integers of at least `least`. Neither true nor 1.0 is one."""
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and least <= value < 2**63
