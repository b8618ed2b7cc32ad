"""What the cache folder holds: images, features and maps. Copies of data sets that are in buckets are no part of it."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from fashion.data.cache.arrow_files import check_seal, seal_path, temporary_path
from fashion.data.cache.use import unused, use_path
from fashion.errors import BlockedError, Problem, UserError, nearest

# A sweep's limit for the cache folder, in GB; without it there is none.
LIMIT = "FASHION_CACHE_GB"
_FILE = re.compile(r"(?P<data>[0-9a-f]{16})-(?P<split>[a-z+]+)-(?P<kind>features-|maps-|)(?P<rest>.+)\.arrow")
KINDS = {"": "images", "features-": "features", "maps-": "maps"}


@dataclass(frozen=True)
class CacheEntry:
    """One thing in the cache folder, which may go and be made anew.

    name: by which `cache rm` knows it. kind: images, features or maps. what: what it holds, in words. data: the data
    set's fingerprint. size: bytes. used: when it was used last, in seconds since 1970. sweep: which sweep used it last,
    where that is known. whole: False while it is being made, or where that was interrupted. in_use: whether a process
    has it open, or makes it.
    """

    name: str
    kind: str
    what: str
    data: str
    size: int
    used: float
    sweep: str
    whole: bool
    in_use: bool
    path: Path


def entries(folder: Path) -> list[CacheEntry]:
    """What the cache folder holds, the least recently used first."""
    found: dict[Path, CacheEntry] = {}
    for path in _files(folder):
        whole = path.with_name(path.name.removeprefix(".").removesuffix(".tmp"))
        if whole not in found and (entry := _entry(whole)) is not None:
            found[whole] = entry
    return sorted(found.values(), key=lambda entry: (entry.used, entry.name))


def total(found: Iterable[CacheEntry]) -> int:
    """Bytes of all of them."""
    return sum(entry.size for entry in found)


def remove(entry: CacheEntry) -> bool:
    """Remove an entry's files, unless it is in use. Returns whether it is gone."""
    with unused(entry.path) as free:
        if not free:
            return False
        temporary = temporary_path(entry.path)
        # The file first: a seal without one says nothing, a file without its seal is made anew.
        for path in (entry.path, temporary, seal_path(temporary), seal_path(entry.path), use_path(entry.path)):
            path.unlink(missing_ok=True)
        Path(f"{entry.path}.lock").unlink(missing_ok=True)
    return True


def named(found: Sequence[CacheEntry], names: Sequence[str]) -> list[CacheEntry]:
    """The entries of these names, or of a kind: `maps` is all maps. Raises UserError for a name that is none."""
    wanted: dict[Path, CacheEntry] = {}
    for name in names:
        these = [entry for entry in found if name in (entry.name, entry.kind, entry.path.name)]
        if not these and name not in KINDS.values():
            known = [entry.name for entry in found]
            fix = nearest(
                name, known, "`fashion-sweep cache` lists the names; images, features and maps are all of a kind"
            )
            raise UserError(Problem("cache rm", "must be a name or a kind of what the cache folder holds", name, fix))
        wanted |= {entry.path: entry for entry in these}
    return list(wanted.values())


def trim(folder: Path, most: float) -> list[CacheEntry]:
    """Remove the least recently used entries that nobody uses, until the others take at most `most` bytes. Returns what
    was removed."""
    found, gone = entries(folder), list[CacheEntry]()
    left = total(found)
    for entry in found:
        if left <= most:
            break
        if not entry.in_use and remove(entry):
            gone.append(entry)
            left -= entry.size
    return gone


def limit() -> float | None:
    """The cache folder's limit in bytes, from $FASHION_CACHE_GB; None where there is none. Raises UserError for what is
    no positive number."""
    text = os.environ.get(LIMIT, "").strip()
    if not text:
        return None
    try:
        size = float(text)
    except ValueError:
        size = 0.0
    if not 0 < size < 1e9:
        raise UserError(Problem(LIMIT, "must be a number of GB above 0, such as 50", text))
    return size * 1e9


def make_room(what: str, size: int, path: Path) -> None:
    """Let the least recently used entries go that nobody uses, so that a new file `path` of `size` bytes stays within
    the limit, if there is one. Raises BlockedError where what is in use leaves too little."""
    if (most := limit()) is None:
        return
    folder = path.parent
    before = sum(entry.size for entry in entries(folder) if entry.path == path)  # what was left of it, to be replaced
    trim(folder, most - size + before)
    if (held := total(entries(folder)) - before) + size > most:
        raise BlockedError(
            f"{what} needs {size / 1e9:.3g} GB in {folder}, where {LIMIT} allows {most / 1e9:g} GB and "
            f"{held / 1e9:.3g} GB are in use. Raise {LIMIT}, or wait for the sweeps that use the rest."
        )


def _files(folder: Path) -> Iterator[Path]:
    with suppress(FileNotFoundError), os.scandir(folder) as listed:
        for each in listed:
            name = each.name.removeprefix(".").removesuffix(".tmp")
            if _FILE.fullmatch(name) and each.is_file(follow_symlinks=False):
                yield Path(each.path)


def _entry(path: Path) -> CacheEntry | None:
    """The entry of a file, whole or half written; None where it has gone meanwhile."""
    parts = _FILE.fullmatch(path.name)
    assert parts is not None, "_files looks at the names"
    size, times = 0, [0.0]
    for each in (path, temporary_path(path), use_path(path)):
        with suppress(FileNotFoundError):
            status = each.stat()
            size += status.st_size
            times.append(status.st_mtime)
    if not size:
        return None
    sweep = ""
    with suppress(OSError, UnicodeDecodeError):
        sweep = use_path(path).read_text()
    kind = KINDS[parts["kind"]]
    in_use = False
    with suppress(OSError), unused(path) as free:  # a folder that can only be read has no locks
        in_use = not free
    name = f"{kind}-{hashlib.sha256(path.name.encode()).hexdigest()[:8]}"
    return CacheEntry(
        name, kind, _what(path, parts, kind), parts["data"], size, max(times), sweep, path.exists(), in_use, path
    )


def _what(path: Path, parts: re.Match[str], kind: str) -> str:
    """What a file holds, from its own description where it is whole."""
    split = parts["split"]
    if kind == "images":
        side, *how = parts["rest"].rpartition("-v")[0].split("-")
        return f"{split} at {side} px ({', '.join(how)})"
    of = _description(path)
    if not of:
        return split
    cut = f", behind stage {of['cut']}" if "cut" in of else ""
    precision = f", in {of['precision']}" if "precision" in of else ""
    return f"{split}{', mirrored' if of['mirrored'] else ''}, {of['backbone']} at {of['crop']} px{cut}{precision}"


def _description(path: Path) -> dict[str, Any]:
    try:
        check_seal(path)
        metadata = pa.ipc.open_file(pa.memory_map(str(path))).schema.metadata or {}
        return dict(json.loads(metadata[b"of"]))
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
        return {}  # half written, damaged, or of a version that wrote none
