"""The journal of a run in a bucket: objects that each begin at the byte where the one before ends.

    journal/000000000000000.jsonl    whole lines of the journal from that byte on

An object is created once and then only grows, when those after it are merged into it. Where two would go on from the same
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
from fashion.files import parse, write_atomic

Progress = Callable[[int, int], None]

JOURNAL = "journal"
MARK = ".stored.json"  # in a working copy: up to which byte its journal is known to be the bucket's
# A list and what is got of it afterwards may differ while a driver merges the journal's objects.
LOOKS = 5


class _Moved(Exception):  # noqa: N818 (no error: look again)
    """What was listed is there no more, or does not hang together: somebody is merging it."""


class Segment(NamedTuple):
    """An object of the journal: its bytes from `start` to `end`, so far."""

    start: int
    end: int
    name: str
    modified: datetime | None = None


def segment_name(start: int) -> str:
    return f"{JOURNAL}/{start:015d}.jsonl"


def segments(store: Store) -> list[Segment]:
    """The journal's objects, from its beginning on."""
    found = []
    for each in store.objects(JOURNAL):
        if match := re.fullmatch(rf"{JOURNAL}/(\d{{15}})\.jsonl", each.name):
            start = int(match[1])
            found.append(Segment(start, start + each.size, each.name, each.modified))
    return found


def mark(path: Path, uploaded: int) -> None:
    """Note that the working copy's journal is the bucket's up to that byte, so that the next look compares the rest."""
    if _marked(path) != uploaded:
        with suppress(OSError):  # a full disk: then more is compared
            write_atomic(path / MARK, json.dumps({"same": uploaded}).encode())


def follow(store: Store, path: Path, progress: Progress | None) -> int | None:
    """Append to the working copy's journal what the bucket has beyond it. Returns the byte up to which both are the same,
    None when they contradict each other."""
    for look in range(LOOKS):
        try:
            return _append_new(store, path, progress)
        except (NotThereError, _Moved) as moved:
            if look == LOOKS - 1:
                fix = "Restore the objects that are missing, or give the sweep another name"
                rule = f"the record does not hang together ({moved})"
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
                raise _Moved(f"nothing holds its byte {at} of {end}")
            longest = max(covering, key=lambda each: each.end)
            content = store.get(longest.name)[at - longest.start :]
            if not content.endswith(b"\n"):
                raise _Moved(f"{longest.name} ends within a line or before byte {at}")
            journal.seek(at)
            if at < size and journal.read(min(size - at, len(content))) != content[: size - at]:
                return None
            new = content[max(size - at, 0) :]
            if new:
                # What is cut off is half a line, which was never acted on.
                journal.truncate(max(size, at))
                journal.write(new)
            at += len(content)
            if progress is not None:
                progress(at >> 20, end >> 20)
        journal.flush()
        os.fsync(journal.fileno())
    if (latest := last_put(listed)) and at >= size:
        os.utime(path / "journal.jsonl", (latest, latest))
    return at


def last_put(listed: list[Segment]) -> float:
    """When the latest of them was put, in seconds since the epoch by the bucket's clock; 0 for none."""
    return max((each.modified.timestamp() for each in listed if each.modified), default=0.0)


def _marked(path: Path) -> int:
    try:
        same = parse((path / MARK).read_bytes())["same"]
        return same if isinstance(same, int) and same >= 0 else 0
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return 0  # all of it is compared


def _whole_lines(journal: Any) -> int:
    """The size of a file without a last line that lacks its end."""
    end = journal.seek(0, os.SEEK_END)
    while end:
        begin = max(end - (1 << 16), 0)
        journal.seek(begin)
        found = journal.read(end - begin).rfind(b"\n")
        if found >= 0:
            return int(begin + found + 1)
        end = begin
    return 0
