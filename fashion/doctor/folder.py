"""A folder that a sweep writes to, examined: is it writable, fast, large enough, and the same on all nodes?"""

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

from fashion.doctor.diagnosis import HERE, Diagnosis
from fashion.errors import Problem

SCRATCH = ".fashion-doctor-"  # the names of files that try out a folder start with this
BLOCK = 4 << 20  # bytes between two fsyncs while speed is measured
BLOCKS, BLOCK_SECONDS = 4, 1.0  # at most this many blocks, none of which begins after this many seconds
# EfficientNet-B3 writes up to 130 MB with an epoch's report. That takes half a minute at this rate, which slows a trial
# of short epochs.
LEAST_SPEED = 5e6  # bytes a second
FULL = (errno.ENOSPC, errno.EDQUOT)
LEAST_FREE = 10**9  # bytes, besides what the caches of this spec need


@dataclass(frozen=True)
class Folder:
    """A folder that is written to. `room` is how many bytes must be free, `instead` how to choose another folder.

    `mark` is a file that the machine with the command has put there. A node that does not see it has another folder of
    the same name.
    """

    name: str
    path: Path
    instead: str
    room: int = LEAST_FREE
    mark: str = ""


def existing(path: Path) -> Path:
    """The folder itself, or the nearest folder above it that exists, in which it would be made."""
    while not os.path.lexists(path) and path != path.parent:
        path = path.parent
    return path


def unwritable(node: str, folder: Folder, error: OSError) -> Diagnosis:
    """The diagnosis of a folder in which no file can be made."""
    mend = "Make it writable for the user who runs Ray"
    if error.errno in FULL:
        mend = "Free some space"
    elif error.errno == errno.ENOTDIR:
        mend = "Move away the file that is in its place"
    place, value = f"{folder.name} {folder.path}", str(error.strerror)
    rule = "a folder that can be written to"
    return Diagnosis("writable", node, False, Problem(place, rule, value, f"{mend}, or {folder.instead}"))


@contextmanager
def marked(folder: Folder) -> Iterator[Folder]:
    """Within the `with` block the folder holds a file by which other nodes recognise it.

    Raises OSError where no file can be made in it.
    """
    handle, name = tempfile.mkstemp(prefix=SCRATCH, dir=existing(folder.path))
    try:
        os.close(handle)
        yield replace(folder, mark=name)
    finally:
        os.unlink(name)


def examine_folder(node: str, folder: Folder) -> list[Diagnosis]:
    """Write a little into the folder, or into the one in which it would be made, and remove it again."""
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
        value = "" if there == folder.path else f"will be made in {there}"
        found.append(Diagnosis("writable", node, True, Problem(place, "a folder that can be written to", value)))
        if speed is not None:
            fast = speed >= LEAST_SPEED
            fix = "" if fast else f"Find out what else writes there, or {folder.instead}"
            rule = f"can be written at {LEAST_SPEED / 1e6:g} MB/s or more"
            found.append(Diagnosis("speed", node, fast, Problem(place, rule, f"{speed / 1e6:.1f} MB/s", fix)))
    room = free >= folder.room
    fix = "" if room else f"Free some space, or {folder.instead}"
    rule = f"has {folder.room / 1e9:.1f} GB free"
    found.append(Diagnosis("free", node, room, Problem(place, rule, f"{free / 1e9:.1f} GB", fix)))
    if folder.mark:
        seen = os.path.exists(folder.mark)
        fix = "" if seen else f"Mount the same folder there on all nodes, or {folder.instead} that all of them see"
        rule, value = f"the same folder as on {HERE}", "the same" if seen else "another"
        found.append(Diagnosis("shared", node, seen, Problem(place, rule, value, fix)))
    return found


def _write_speed(there: Path, free: int) -> float | None:
    """Bytes a second of the fastest block, fsync included, since other load on the disk can only slow a block down.

    None where too little room is left to measure without harming others who write there. A byte is written even then,
    to see that it can be. Raises OSError where it can't.
    """
    handle, name = tempfile.mkstemp(prefix=SCRATCH, dir=there)
    try:
        with os.fdopen(handle, "wb") as file:
            measured = free > 10 * BLOCK * BLOCKS
            block = os.urandom(BLOCK if measured else 1)  # random bytes, since a file system may compress
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
