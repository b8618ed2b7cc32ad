"""Who uses a file of the cache folder: a shared lock while a process has it open, and a note of the last use.

The note, NAME.used, has the time of the last use as its own time, and names the sweep that came last.
"""

from __future__ import annotations

import fcntl
import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fashion.files import KernelLock, lacks_feature, write_atomic


def use_path(path: Path) -> Path:
    """Where the last use of a cache file is noted."""
    return path.with_name(f"{path.name}.used")


def keep_open(path: Path, user: Any) -> None:
    """Hold a cache file for this process, as long as the object `user` lives, and note the time.

    Raises FileNotFoundError where the file has just been removed.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH)
        if not os.fstat(handle).st_nlink:
            raise FileNotFoundError(f"{path} has just been removed")
    except OSError as error:
        os.close(handle)
        if not lacks_feature(error):
            raise
        return  # without locks, whoever removes it knows nothing of this process; the mapping stays whole
    weakref.finalize(user, os.close, handle)
    with suppress(OSError):  # a cache that can be read alone is used all the same
        use_path(path).touch()


def note_user(path: Path, sweep: str) -> None:
    """Note which sweep uses a cache file, and the time."""
    with suppress(OSError):  # it only helps people
        write_atomic(use_path(path), sweep.encode())


@contextmanager
def unused(path: Path) -> Iterator[bool]:
    """Within the block nobody begins to use, or to build, the cache file; False where somebody does already."""
    try:
        lock = KernelLock(f"{path}.lock").acquire(timeout=0)
    except TimeoutError:
        yield False
        return
    try:
        handle = os.open(path, os.O_RDONLY) if path.exists() else -1  # half written, or gone
        try:
            yield handle < 0 or _alone(handle)
        finally:
            if handle >= 0:
                os.close(handle)
    finally:
        lock.release()


def _alone(handle: int) -> bool:
    """Whether no other process holds the open file; it is locked against those that come."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if not lacks_feature(error):
            raise
    return True
