"""One digest of what a data set's images hold, so that a copied, restored or touched data set counts as the same.

All bytes are read once. The digest is kept in the cache folder under what is cheap to find out about the files (name,
size, times), much like git's index: the next call reads no image unless one of those has changed. The cache folder
itself is found here, too.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from fashion.errors import BlockedError, DataError, Problem, UserError
from fashion.files import write_atomic

__all__ = ["contents_digest", "default_cache_dir", "require_room", "status_digest"]
# Digests that this process knows: where the cache folder can't be written, images are still read only once.
_known: dict[str, str] = {}


def default_cache_dir() -> Path:
    """$FASHION_CACHE, or ~/.cache/fashion-sweep. Raises UserError where there is no home folder for it."""
    named = os.environ.get("FASHION_CACHE") or "~/.cache/fashion-sweep"
    try:
        return Path(named).expanduser()
    except RuntimeError:
        rule, fix = "must be in a folder that is known", "Set FASHION_CACHE to a folder, or HOME to your own"
        raise UserError(Problem("the cache folder", rule, f"{named}, without a home folder", fix)) from None


def require_room(what: str, size: int, folder: Path) -> None:
    """Raise BlockedError unless `folder`, for caches, has room for `what`, which takes `size` bytes, and 2 % more."""
    free = shutil.disk_usage(folder).free
    if size * 1.02 > free:
        raise BlockedError(
            f"{what} needs {size / 1e9:.1f} GB in {folder}, where {free / 1e9:.1f} GB are free. "
            "Set FASHION_CACHE to a folder with room."
        )


def contents_digest(root: Path, images: Sequence[str], progress: Callable[[int, int], None] | None = None) -> str:
    """64 hex digits over the names (relative to `root`) and bytes of all images, in their order.

    `progress(done, total)` is called while images are read, which is never if nothing has changed since the last time.
    Raises DataError where an image is missing or can't be read.
    """
    status = status_digest(root, images)
    if status not in _known:
        _known[status] = _kept_digest(default_cache_dir() / "contents" / status, root, images, progress)
    return _known[status]


def status_digest(root: Path, images: Sequence[str]) -> str:
    """A digest of what changes along with an image: its size and the times at which its bytes and its inode changed.

    The inode's time moves even if a program sets the other one back.
    """
    digest = hashlib.sha256(os.fsencode(root.absolute()))
    for image in images:
        try:
            status = os.stat(root / image)
        except OSError as error:
            raise _unreadable(image, error) from error
        digest.update(f"\0{image}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}".encode())
    return digest.hexdigest()


def _kept_digest(kept: Path, root: Path, images: Sequence[str], progress: Callable[[int, int], None] | None) -> str:
    with contextlib.suppress(OSError, UnicodeDecodeError):  # missing or damaged: then the images are read
        found = kept.read_text()
        if re.fullmatch("[0-9a-f]{64}", found):
            return found
    digest = _read_all(root, images, progress)
    with contextlib.suppress(OSError):  # it only saves time: a full or read-only cache folder is no reason to stop
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(kept, digest.encode())
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
