"""Sending many files into a bucket at once. What is there already is not sent again."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fashion.bucket.store import PART, Object, Store
from fashion.data.remote.fetch import THREADS, Progress, Retry, megabytes


class Send:
    """Puts files into a store, except those of which the objects in `there` already have the content.

    `sent` and `kept` count the objects that were sent and that were there already; `size` is the bytes that were sent.
    """

    def __init__(self, store: Store, there: Mapping[str, Object], progress: Progress) -> None:
        self.store, self.there, self.progress = store, there, progress
        self.retry = Retry(str(store.address), progress)
        self.lock = threading.Lock()
        self.sent = self.kept = self.size = self.done = self.total = 0

    def all(self, files: Mapping[str, Path]) -> None:
        """Send files under their names, several at a time. Raises StorageError where the store can't be written."""
        sizes = {name: path.stat().st_size for name, path in files.items()}
        self.total = sum(sizes.values())
        pool = ThreadPoolExecutor(THREADS)
        try:
            for _ in pool.map(lambda name: self._small(name, files[name]), [n for n in files if sizes[n] <= PART]):
                pass
            for name in files:
                if sizes[name] > PART:
                    self._large(name, files[name])
        finally:
            self.retry.stopped.set()
            pool.shutdown(cancel_futures=True)

    def _small(self, name: str, path: Path) -> None:
        content = path.read_bytes()
        if self._is_there(name, len(content), f'"{_md5(content).hex()}"'):
            return
        self.retry(lambda: self.store.put(name, content))
        self._count(len(content))
        self._count_sent(len(content))

    def _large(self, name: str, path: Path) -> None:
        size = path.stat().st_size
        found = self.there.get(name)
        if found is not None and found.size == size and self._is_there(name, size, _tag_of_parts(path)):
            return

        def send() -> None:
            before = self.done
            try:
                self.store.put_blocks(name, self._blocks(path))
            except BaseException:
                self.done = before
                raise

        self.retry(send)
        self._count_sent(size)

    def _blocks(self, path: Path) -> Iterator[bytes]:
        with open(path, "rb") as file:
            while block := file.read(PART):
                yield block
                self._count(len(block))

    def _is_there(self, name: str, size: int, tag: str) -> bool:
        """Whether an object of that content is there. Where a store's tags are no MD5, the file is sent again."""
        found = self.there.get(name)
        if found is None or found.size != size or found.version != tag:
            return False
        with self.lock:
            self.kept += 1
        self._count(size)
        return True

    def _count(self, size: int) -> None:
        with self.lock:
            self.done += size
            self.progress(f"pushing to {self.store.address} (MB)", megabytes(self.done), megabytes(self.total))

    def _count_sent(self, size: int) -> None:
        with self.lock:
            self.sent += 1
            self.size += size


def _md5(content: bytes) -> bytes:
    return hashlib.md5(content, usedforsecurity=False).digest()


def _tag_of_parts(path: Path) -> str:
    """The tag that S3 gives an object sent in parts: the MD5 of the parts' MD5s."""
    with open(path, "rb") as file:
        parts = [_md5(part) for part in iter(lambda: file.read(PART), b"")]
    return f'"{_md5(b"".join(parts)).hex()}-{len(parts)}"'
