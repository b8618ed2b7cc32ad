"""Fetching many objects into files at once. An object that has changed since it was listed, or is cut off, is
refused."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from fashion.bucket.store import PART, AwayError, NotThereError, Object, Store
from fashion.errors import DataError, Problem

# label, done, total
Progress = Callable[[str, int, int], None]
T = TypeVar("T")

THREADS = 16
# Seconds that a running transfer waits for a store that is away before it gives up.
WAIT = 300.0
PAUSE = 1.0


def megabytes(size: int) -> int:
    """Whole megabytes, rounded up, for showing progress."""
    return -(-size // 10**6)


class Retry:
    """Repeats calls of a store that is away until it answers or `stopped` is set. For use by several threads."""

    def __init__(self, address: str, progress: Progress | None, wait: float = WAIT) -> None:
        self.address, self.progress, self.wait = address, progress, wait
        self.stopped = threading.Event()

    def __call__(self, act: Callable[[], T]) -> T:
        """What `act` returns. Raises AwayError once the store has been away for longer than `wait` seconds."""
        begun = time.monotonic()
        while True:
            try:
                return act()
            except AwayError:
                waited = time.monotonic() - begun
                if self.stopped.is_set() or waited > self.wait:
                    raise
                if self.progress is not None:
                    self.progress(f"{self.address} does not answer, trying again (s)", int(waited), int(self.wait))
            self.stopped.wait(PAUSE)


class Fetch:
    """Fetches objects of a store into files below a folder, where each file appears whole.

    `scratch` is a folder on the same file system for files that are not whole yet. `fetched` is called with each object
    once its file is there, by one thread at a time.
    """

    def __init__(
        self, store: Store, folder: Path, scratch: Path, fetched: Callable[[Object], None], progress: Progress | None
    ) -> None:
        self.store, self.folder, self.scratch, self.fetched, self.progress = store, folder, scratch, fetched, progress
        self.retry = Retry(str(store.address), progress)
        self.done = 0
        self.lock = threading.Lock()

    def bring(self, objects: Sequence[Object], digests: Mapping[str, str]) -> None:
        """Fetch all objects. `digests` maps names to the SHA-256 of their content, where it is known.

        Raises:
            StorageError: the store can't be read, or is away for too long.
            DataError: an object is no longer the one that was listed, or its digest differs.
        """
        shutil.rmtree(self.scratch, ignore_errors=True)  # left by a killed process
        self.scratch.mkdir(parents=True)
        self.total = sum(each.size for each in objects)
        large = [each for each in objects if each.size > PART]
        pool = ThreadPoolExecutor(THREADS)
        try:
            small = [each for each in objects if each.size <= PART]
            for _ in pool.map(lambda each: self._small(each, digests), small):
                pass
            for each in large:
                self._large(pool, each, digests)
        finally:
            self.retry.stopped.set()
            pool.shutdown(cancel_futures=True)
            shutil.rmtree(self.scratch, ignore_errors=True)

    def _small(self, wanted: Object, digests: Mapping[str, str]) -> None:
        def get() -> tuple[bytes, str]:
            try:
                return self.store.part(wanted.name)
            except NotThereError:
                return b"", ""

        content, version = self.retry(get)
        self._require_same(wanted, version, len(content) == wanted.size)
        self._require_digest(wanted, hashlib.sha256(content).hexdigest(), digests)
        temporary = self.scratch / hashlib.sha256(wanted.name.encode()).hexdigest()
        temporary.write_bytes(content)
        self._appears(temporary, wanted)
        self._count(wanted.size)

    def _large(self, pool: ThreadPoolExecutor, wanted: Object, digests: Mapping[str, str]) -> None:
        """Fetch an object in parts, several at a time."""
        temporary = self.scratch / hashlib.sha256(wanted.name.encode()).hexdigest()
        with open(temporary, "wb") as file:
            os.truncate(file.fileno(), wanted.size)

            def part(start: int) -> None:
                end = min(start + PART, wanted.size)
                try:
                    content, version = self.retry(lambda: self.store.part(wanted.name, start, end))
                except NotThereError:
                    content, version = b"", ""
                self._require_same(wanted, version, len(content) == end - start)
                os.pwrite(file.fileno(), content, start)
                self._count(end - start)

            for _ in pool.map(part, range(0, wanted.size, PART)):
                pass
        if wanted.name in digests:
            with open(temporary, "rb") as written:
                self._require_digest(wanted, hashlib.file_digest(written, "sha256").hexdigest(), digests)
        self._appears(temporary, wanted)

    def _require_same(self, wanted: Object, version: str, whole: bool) -> None:
        if version != wanted.version or not whole:
            place, rule = str(self.store.address / wanted.name), "has changed while it was being fetched"
            raise DataError("The data set can't be used:", [Problem(place, rule, fix="Run the command again")])

    def _require_digest(self, wanted: Object, found: str, digests: Mapping[str, str]) -> None:
        digest = digests.get(wanted.name, found)
        if found != digest:
            place, rule = (
                str(self.store.address / wanted.name),
                f"must have the SHA-256 {digest}, which the manifest states",
            )
            raise DataError("The data set in the bucket is damaged:", [Problem(place, rule, found, "Push it again")])

    def _appears(self, temporary: Path, wanted: Object) -> None:
        path = self.folder / wanted.name
        path.parent.mkdir(parents=True, exist_ok=True)
        os.replace(temporary, path)
        with self.lock:
            self.fetched(wanted)

    def _count(self, size: int) -> None:
        with self.lock:
            self.done += size
            if self.progress is not None:
                self.progress(f"fetching {self.store.address} (MB)", megabytes(self.done), megabytes(self.total))
