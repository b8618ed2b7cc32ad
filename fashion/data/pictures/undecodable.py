"""Which images of a data set can't be decoded, found once and kept in the cache folder.

The verdict belongs to the images' bytes and to what decodes them: another Pillow may read more.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import PIL

from fashion.data.contents import default_cache_dir
from fashion.data.images import in_threads, load_rgb
from fashion.data.pictures.formats import formats, pixel_limit
from fashion.errors import DataError
from fashion.files import write_atomic

_known: dict[Path, dict[str, str]] = {}  # of this process, for a cache folder that can't be written


def undecodable(
    root: Path, images: Sequence[str], contents: str, progress: Callable[[int, int], None] | None = None
) -> dict[str, str]:
    """Image -> why it can't be decoded, for those that can't. contents: the data set's `contents_digest`.

    `progress(done, total)` is called while images are decoded, which is never if these bytes were looked at before.
    """
    decoder = [PIL.__version__, *formats(), pixel_limit()]
    said = hashlib.sha256(json.dumps([contents, decoder]).encode()).hexdigest()
    kept = default_cache_dir() / "undecodable" / said
    if kept not in _known:
        found = _read(kept)
        _known[kept] = _written(kept, _looked_at(root, images, progress)) if found is None else found
    return _known[kept]


def _looked_at(root: Path, images: Sequence[str], progress: Callable[[int, int], None] | None) -> dict[str, str]:
    def why(image: str) -> str:
        try:
            load_rgb(root / image)
        except DataError as error:
            return error.problems[0].value or error.problems[0].rule
        return ""

    found = {}
    for done, (image, reason) in enumerate(zip(images, in_threads(why, images), strict=True), start=1):
        if reason:
            found[image] = reason
        if progress is not None:
            progress(done, len(images))
    return found


def _read(kept: Path) -> dict[str, str] | None:
    """The verdict that was kept; None where it is missing or damaged."""
    try:
        found = json.loads(kept.read_bytes())
    except (OSError, ValueError):
        return None
    whole = isinstance(found, dict) and all(isinstance(why, str) for why in found.values())
    return found if whole else None


def _written(kept: Path, found: dict[str, str]) -> dict[str, str]:
    with contextlib.suppress(OSError):  # it only saves time: a full or read-only cache folder is no reason to stop
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(kept, json.dumps(found).encode())
    return found
