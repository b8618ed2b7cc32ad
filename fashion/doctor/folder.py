"""One folder that a sweep writes to, examined: whether it takes files, how fast, how much, and whether others see the same."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fashion.errors import Problem

HERE = "this machine"
SCRATCH = ".fashion-doctor-"  # starts the names of files that are written to try a folder
BLOCK = 4 << 20  # bytes between two fsyncs while speed is measured
BLOCKS, BLOCK_SECONDS = 4, 1.0  # at most so many, and none begun later than this
# An epoch's report of EfficientNet-B3 writes up to 130 MB: half a minute at this rate, which a trial of short epochs feels.
LEAST_SPEED = 5e6
FULL = (errno.ENOSPC, errno.EDQUOT)
LEAST_FREE = 10**9  # bytes, beside what the caches of this spec need


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at on one node. `problem.value` is what was found and `problem.fix` empty where all is well."""

    check: str
    node: str
    ok: bool
    problem: Problem

    def to_json(self) -> dict[str, Any]:
        found = self.problem
        return {"check": self.check, "node": self.node, "ok": self.ok, "place": found.place, "value": found.value,
                "rule": found.rule, "fix": found.fix}  # fmt: skip


@dataclass(frozen=True)
class Folder:
    """One that is written to. `room`: bytes that must be free. `instead`: how to choose another.

    `mark` is a file that the machine with the command has put there: who does not see it has another folder of that name.
    """

    name: str
    path: Path
    instead: str
    room: int = LEAST_FREE
    mark: str = ""


def existing(path: Path) -> Path:
    """The folder itself, or the nearest one above it that is there: where it would be made."""
    while not os.path.lexists(path) and path != path.parent:
        path = path.parent
    return path


def unwritable(node: str, folder: Folder, error: OSError) -> Finding:
    mend = "Make it writable for the user that Ray runs as"
    if error.errno in FULL:
        mend = "Free some space"
    elif error.errno == errno.ENOTDIR:
        mend = "Move the file away that is in its place"
    place, value = f"{folder.name} {folder.path}", str(error.strerror)
    rule = "a folder that can be written to"
    return Finding("writable", node, False, Problem(place, rule, value, f"{mend}, or {folder.instead}"))


@contextmanager
def marked(folder: Folder) -> Iterator[Folder]:
    """The folder with a file in it by which others know it, for as long as the `with` block runs. Raises OSError where it
    takes none."""
    handle, name = tempfile.mkstemp(prefix=SCRATCH, dir=existing(folder.path))
    try:
        os.close(handle)
        yield replace(folder, mark=name)
    finally:
        os.unlink(name)


def examine_folder(node: str, folder: Folder) -> list[Finding]:
    place, there = f"{folder.name} {folder.path}", existing(folder.path)
    found = []
    try:
        free = shutil.disk_usage(there).free
    except OSError as error:
        return [unwritable(node, folder, error)]
    try:
        speed = _write_speed(there, free)
    except OSError as error:
        found.append(unwritable(node, folder, error))
        if error.errno not in FULL:
            return found
    else:
        value = "" if there == folder.path else f"not there yet, {there} takes it"
        found.append(Finding("writable", node, True, Problem(place, "a folder that can be written to", value)))
        if speed is not None:
            fast = speed >= LEAST_SPEED
            fix = "" if fast else f"See what else writes there, or {folder.instead}"
            rule = f"is written at {LEAST_SPEED / 1e6:g} MB/s or more"
            found.append(Finding("speed", node, fast, Problem(place, rule, f"{speed / 1e6:.1f} MB/s", fix)))
    room = free >= folder.room
    fix = "" if room else f"Free some space, or {folder.instead}"
    rule = f"has {folder.room / 1e9:.1f} GB free"
    found.append(Finding("free", node, room, Problem(place, rule, f"{free / 1e9:.1f} GB", fix)))
    if folder.mark:
        seen = os.path.exists(folder.mark)
        fix = "" if seen else f"Mount one folder there on all nodes, or {folder.instead} that all of them see"
        rule, value = f"the folder that {HERE} sees there", "the same" if seen else "another"
        found.append(Finding("shared", node, seen, Problem(place, rule, value, fix)))
    return found


def _write_speed(there: Path, free: int) -> float | None:
    """Bytes a second of the fastest block, fsync included: what else happens on a disk only slows it. None where there is
    too little room to measure without harm to who else writes there; a few bytes are written all the same.

    Raises OSError where the folder takes no file.
    """
    handle, name = tempfile.mkstemp(prefix=SCRATCH, dir=there)
    try:
        with os.fdopen(handle, "wb") as file:
            measured = free > 10 * BLOCK * BLOCKS
            block = os.urandom(BLOCK if measured else 1)  # a file system may compress
            fastest, begun = 0.0, time.perf_counter()
            for _ in range(BLOCKS if measured else 1):
                start = time.perf_counter()
                file.write(block)
                file.flush()
                os.fsync(file.fileno())
                end = time.perf_counter()
                fastest = max(fastest, len(block) / (end - start))
                if end - begun > BLOCK_SECONDS:
                    break
        return fastest if measured else None
    finally:
        os.unlink(name)
