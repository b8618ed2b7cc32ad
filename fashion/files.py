"""Whole and durable files, written to a temporary path and then renamed, and JSON that a stranger may have written."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fashion.errors import Problem, RunError


def now() -> str:
    """The current time in UTC as ISO 8601 with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def write_atomic(path: Path, content: bytes) -> None:
    """Write `content` to a temporary file beside `path`, then rename it: readers see the old file or the new one.

    The file survives a power cut once this returns. Raises OSError, and then leaves the old file in place.
    """
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
    """Let created and renamed entries of `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


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
