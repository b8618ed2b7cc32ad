"""The journal of a run in a bucket: a chain of objects, each of which begins at the byte where the previous one ends.

    journal/000000000000000.jsonl    whole lines of the journal, from that byte on

An object is created once and then only grows, when later ones are merged into it. If two processes go on from the same
byte, one of them finds the name taken.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from fashion.bucket.store import NotThereError, Store
from fashion.errors import Problem, RunError
from fashion.files import parse, sync, write_atomic

Progress = Callable[[int, int], None]

JOURNAL = "journal"
MARK = ".stored.json"  # in a working copy: up to which byte its journal is known to equal the bucket's
# While a driver merges the journal's objects, what is fetched may differ from what was listed before.
LOOKS = 5


class _Moved(Exception):  # noqa: N818 (no error: look again)
    """What was listed is gone or incomplete: some process is merging it."""


class Segment(NamedTuple):
    """An object of the journal, which holds its bytes from `start` to `end` so far."""

    start: int
    end: int
    name: str
    modified: datetime | None = None


def segment_name(start: int) -> str:
    """The name of the object that begins at this byte."""
    return f"{JOURNAL}/{start:015d}.jsonl"


def segments(store: Store) -> list[Segment]:
    """The journal's objects, in their order."""
    found = []
    for each in store.objects(JOURNAL):
        if match := re.fullmatch(rf"{JOURNAL}/(\d{{15}})\.jsonl", each.name):
            start = int(match[1])
            found.append(Segment(start, start + each.size, each.name, each.modified))
    return found


def mark(path: Path, uploaded: int) -> None:
    """Note that the working copy's journal equals the bucket's up to this byte: next time only the rest is compared."""
    if _marked(path) != uploaded:
        with suppress(OSError):  # a full disk: then more is compared
            write_atomic(path / MARK, json.dumps({"same": uploaded}).encode())


def follow(store: Store, path: Path, progress: Progress | None) -> int | None:
    """Append to the working copy's journal what the bucket has beyond it.

    Returns the byte up to which both are equal, None where they contradict each other. Raises RunError where parts of
    the bucket's journal are missing.
    """
    for look in range(LOOKS):
        try:
            return _append_new(store, path, progress)
        except (NotThereError, _Moved) as moved:
            if look == LOOKS - 1:
                fix = "Restore the missing objects, or give the sweep another name"
                rule = f"parts of the record are missing ({moved})"
                raise RunError(Problem(str(store.address / JOURNAL), rule, fix=fix)) from None
            time.sleep(0.2 * look)
    raise AssertionError("unreachable")


def _append_new(store: Store, path: Path, progress: Progress | None) -> int | None:
    listed = segments(store)
    end = max((each.end for each in listed), default=0)
    with open(path / "journal.jsonl", "a+b") as journal:
        size = _whole_lines(journal)
        at = min(_marked(path), size, end)
        while at < end:
            covering = [each for each in listed if each.start <= at < each.end]
            if not covering:
                raise _Moved(f"no object holds byte {at} of {end}")
            longest = max(covering, key=lambda each: each.end)
            content = store.get(longest.name)[at - longest.start :]
            if not content.endswith(b"\n"):
                raise _Moved(f"{longest.name} ends within a line or before byte {at}")
            journal.seek(at)
            if at < size and journal.read(min(size - at, len(content))) != content[: size - at]:
                return None
            new = content[max(size - at, 0) :]
            if new:
                # This cuts off half a line at most, on which nothing ever acted.
                journal.truncate(max(size, at))
                journal.write(new)
            at += len(content)
            if progress is not None:
                progress(at >> 20, end >> 20)
        journal.flush()
        sync(journal.fileno(), Path(journal.name))
    if (latest := last_put(listed)) and at >= size:
        os.utime(path / "journal.jsonl", (latest, latest))
    return at


def last_put(listed: list[Segment]) -> float:
    """The time at which the latest segment was put, in seconds since the epoch by the bucket's clock; 0 for none."""
    return max((each.modified.timestamp() for each in listed if each.modified), default=0.0)


def _marked(path: Path) -> int:
    try:
        same = parse((path / MARK).read_bytes())["same"]
        return same if isinstance(same, int) and same >= 0 else 0
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return 0  # then the whole journal is compared


def _whole_lines(journal: Any) -> int:
    """The size of a file up to its last newline, in bytes."""
    end = journal.seek(0, os.SEEK_END)
    while end:
        begin = max(end - (1 << 16), 0)
        journal.seek(begin)
        found = journal.read(end - begin).rfind(b"\n")
        if found >= 0:
            return int(begin + found + 1)
        end = begin
    return 0
