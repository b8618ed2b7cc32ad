"""Whole and durable files: written to a temporary path and renamed; JSON that a stranger may have written."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fashion.errors import Problem, RunError


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


def require_own(folder: Path, deep: bool = False) -> None:
    """Raise RunError where a run's folder, or with `deep` any folder below it, holds a symbolic link: what is written into
    a run directory, which may be a stranger's, must stay in it."""
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            if os.path.islink(path := os.path.join(place, name)):
                rule = "a run directory holds no symbolic links, since it is written to"
                raise RunError(Problem(path, rule, f"a link to {os.readlink(path)}", "Put a copy in its place"))
        if not deep:
            return


Rule = Callable[[Any], bool]


def parse(content: bytes | str) -> Any:
    """A JSON value. Raises ValueError, also for brackets that are nested too deeply."""
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("lists or objects are nested too deeply") from None


def whole(least: int) -> Rule:
    """A whole number of at least `least`; true and 1.0 are none."""
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and least <= value < 2**63
