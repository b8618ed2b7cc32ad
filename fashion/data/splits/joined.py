"""Training and validation images as one cache, for a model that is trained on both (`train.fit_on`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fashion.data.contents import default_cache_dir
from fashion.data.images import Progress
from fashion.data.pack import Pack, begin_pack
from fashion.errors import BlockedError
from fashion.files import KernelLock

JOINED = "train+val"  # the split that such a cache says it is of
_AT_ONCE = 64 << 20  # bytes of pixels that are in memory at a time


def joined_pack(
    train: Pack, val: Pack, cache_dir: str | Path | None = None, progress: Progress | None = None, verify: bool = False
) -> Pack:
    """The cache of the images of both, those of `train` first, built from theirs if it is missing or damaged. An image
    that is in both is there once, with its labels in `train`.

    Processes that ask at the same time wait for one builder; the file appears by a rename. Raises BlockedError where
    the cache folder can't be written or is full.
    """
    assert train.labels is not None
    assert val.labels is not None
    known = set(train.names)
    rows = np.array([row for row, name in enumerate(val.names) if name not in known], np.int64)
    names = [*train.names, *(val.names[row] for row in rows)]
    labels = np.concatenate([train.labels, val.labels[rows]])
    metadata = {**train.metadata, "split": JOINED, "rows": str(len(names))}
    folder = Path(cache_dir) if cache_dir is not None else default_cache_dir()
    prefix = f"{metadata['fingerprint']}-train-"
    path = folder / train.path.name.replace(prefix, f"{metadata['fingerprint']}-{JOINED}-", 1)
    found = Pack.open_if_of(path, metadata, names, labels, verify)
    if found is not None:
        return found
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with KernelLock(f"{path}.lock"):
            found = Pack.open_if_of(path, metadata, names, labels, verify)
            if found is None:
                _build(path, train, val, rows, names, labels, metadata, progress)
    except OSError as error:
        raise BlockedError(
            f"The image cache can't be written in {folder}: {error}. Set FASHION_CACHE to a folder with room."
        ) from error
    return found if found is not None else Pack.open(path)


def _build(
    path: Path,
    train: Pack,
    val: Pack,
    rows: NDArray[np.int64],
    names: list[str],
    labels: NDArray[np.int64],
    metadata: dict[str, str],
    progress: Progress | None,
) -> None:
    size = int(metadata["resize"])
    file = begin_pack(path, names, labels, size, metadata)
    step, at, done = max(_AT_ONCE // (size * size * 3), 1), 0, file.done(progress)
    for pack, wanted in ((train, np.arange(len(train))), (val, rows)):
        for start in range(0, len(wanted), step):
            part = wanted[start : start + step]
            at += len(part)
            if at <= done:
                continue
            file.put(at - len(part), pack.images[part])
            if progress is not None:
                progress(at, len(names))
    file.finish()
