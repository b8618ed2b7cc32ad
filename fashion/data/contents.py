"""What a data set's images hold, as one digest, so that a copy, a restore or a `touch` is the same data set.

All bytes are read once. The answer is kept in the cache folder under what is cheap to ask of the files (name, size,
times), as git does for its index: the next call reads no image unless one of those changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from fashion.errors import DataError, Problem

__all__ = ["contents_digest", "default_cache_dir"]
_known: dict[str, str] = {}  # of this process: also where the cache folder can't be written, images are read once


def default_cache_dir() -> Path:
    """$FASHION_CACHE, or ~/.cache/fashion-sweep."""
    return Path(os.environ.get("FASHION_CACHE") or "~/.cache/fashion-sweep").expanduser()


def contents_digest(root: Path, images: Sequence[str], progress: Callable[[int, int], None] | None = None) -> str:
    """64 hex digits over the names (relative to `root`) and bytes of all images, in their order.

    `progress(done, total)` is called while images are read, and not at all when nothing changed since the last time.
    Raises DataError when an image is gone or can't be read.
    """
    outside = _outside(root, images)
    if outside not in _known:
        _known[outside] = _kept_digest(default_cache_dir() / "contents" / outside, root, images, progress)
    return _known[outside]


def _outside(root: Path, images: Sequence[str]) -> str:
    """A digest of what changes with an image: its size, and the times of its bytes and of its inode.

    The second time moves also where a program sets the first one back.
    """
    digest = hashlib.sha256(str(root.absolute()).encode())
    for image in images:
        try:
            status = os.stat(root / image)
        except OSError as error:
            raise _unreadable(image, error) from error
        digest.update(f"\0{image}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}".encode())
    return digest.hexdigest()


def _kept_digest(kept: Path, root: Path, images: Sequence[str], progress: Callable[[int, int], None] | None) -> str:
    with contextlib.suppress(OSError, UnicodeDecodeError):  # not there, or not ours: the images themselves tell
        found = kept.read_text()
        if re.fullmatch("[0-9a-f]{64}", found):
            return found
    digest = _read_all(root, images, progress)
    with contextlib.suppress(OSError):  # it saves time only: a full or read-only cache folder is no reason to stop
        kept.parent.mkdir(parents=True, exist_ok=True)
        scratch = kept.with_name(f".{uuid.uuid4().hex}")
        try:
            scratch.write_text(digest)
            scratch.replace(kept)
        finally:
            scratch.unlink(missing_ok=True)
    return digest


def _read_all(root: Path, images: Sequence[str], progress: Callable[[int, int], None] | None) -> str:
    digest = hashlib.sha256()
    for done, image in enumerate(images, start=1):
        try:
            with open(root / image, "rb") as file:
                content = hashlib.file_digest(file, "sha256").digest()
        except OSError as error:
            raise _unreadable(image, error) from error
        digest.update(f"{image}\0".encode() + content)
        if progress is not None:
            progress(done, len(images))
    return digest.hexdigest()


def _unreadable(image: str, error: OSError) -> DataError:
    return DataError("An image can't be read:", [Problem(image, str(error.strerror))])
