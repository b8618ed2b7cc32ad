"""What is predicted, and its pixels a piece at a time: a split of a data set, or a folder of the user's."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from fashion.config.data import DataConfig, Form
from fashion.data.contents import default_cache_dir
from fashion.data.images import Progress, decode_each
from fashion.data.layout import read_dataset
from fashion.data.lists import CHALLENGE, LABELLED, looking_with
from fashion.data.pack import Pack
from fashion.data.pictures.folder import find_pictures
from fashion.data.remote.local_copy import DataRoot, on_this_machine
from fashion.errors import DataError, Problem
from fashion.prediction.promoted import Promoted, require_attributes

SEEN = (
    "all but one of the folds' models were trained on each image of {split}; the recorded val_accuracy says how good "
    "they are on images that they have not seen"
)


@dataclass(frozen=True)
class PredictionInput:
    """What to predict: a split of the data set at `root`, which may be in a bucket, or every picture below `folder`,
    which may also be a single picture.

    follow_links: through links in the folder, too. on_error: what is done about a picture that can't be decoded, by
    default what the model's configuration says; skip gives it a row that says why."""

    root: DataRoot | None = None
    split: str = "test"
    folder: Path | None = None
    follow_links: bool = False
    on_error: Literal["refuse", "skip"] | None = None


class Pixels(Protocol):
    """The pixels of N pictures, for rows [start, stop) at a time."""

    def read(self, start: int, stop: int) -> tuple[NDArray[np.uint8], dict[int, Problem]]:
        """Pixels (stop - start, S, S, 3), and the problems of those that can't be decoded by their place in it, which
        are black."""
        ...

    def stamp(self, start: int, stop: int) -> bytes:
        """Bytes that differ when the pictures do."""
        ...


@dataclass(frozen=True, eq=False)
class Pictures:
    """names: of the N pictures, in order. labels: (N, columns) int64 if known. notes: what was left out, in
    sentences. file_column: what the label file calls the column of the names; empty where there is none. submission:
    whether the challenge's submission may be asked for, as it is for its own data and for a folder of pictures."""

    names: Sequence[str]
    pixels: Pixels
    on_error: str
    labels: NDArray[np.int64] | None = None
    notes: tuple[str, ...] = ()
    file_column: str = ""
    submission: bool = True


@dataclass(frozen=True, eq=False)
class PackPixels:
    """Those of a packed cache."""

    pack: Pack

    def read(self, start: int, stop: int) -> tuple[NDArray[np.uint8], dict[int, Problem]]:
        return self.pack.images[start:stop], {}

    def stamp(self, start: int, stop: int) -> bytes:
        checksums: bytes = self.pack.checksums[start:stop].tobytes()
        return f"{self.pack.path.name}:{start}:{stop}".encode() + checksums


@dataclass(frozen=True, eq=False)
class FilePixels:
    """Those of files, decoded when they are asked for."""

    root: Path
    names: Sequence[str]
    form: Form

    def read(self, start: int, stop: int) -> tuple[NDArray[np.uint8], dict[int, Problem]]:
        size = self.form.resize
        images = np.zeros((stop - start, size, size, 3), np.uint8)
        found = enumerate(decode_each(images, self.root, self.names[start:stop], self.form))
        return images, {row: problem for row, problem in found if problem is not None}

    def stamp(self, start: int, stop: int) -> bytes:
        digest = hashlib.sha256()
        for name in self.names[start:stop]:
            try:
                status = os.stat(self.root / name)
                digest.update(f"\0{name}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}".encode())
            except OSError as error:  # removed or hidden meanwhile: decoding it will say so
                digest.update(f"\0{name}\0{error.errno}".encode())
        return digest.digest()


def pictures_of(source: PredictionInput, meta: Promoted, cache_dir: Path | None, progress: Progress | None) -> Pictures:
    """The pictures of `source`, as the model was trained on them. `progress(done, total)` is called while a split's
    images are looked for (how many there are is not known: 0) and its cache is built.

    Raises DataError where there are none, or no such split, CheckpointError where a data set's attributes are not the
    model's, StorageError where its bucket can't be read.
    """
    data = meta.config.data
    on_error = source.on_error or data.on_error
    if source.folder is None:
        return _of_split(source, meta, on_error, cache_dir, progress)
    found = find_pictures(source.folder, source.follow_links)
    pixels = FilePixels(found.root, found.names, data.form)
    return Pictures(found.names, pixels, on_error, notes=tuple(found.left_out.sentences()))


def _of_split(
    source: PredictionInput, meta: Promoted, on_error: str, cache_dir: Path | None, progress: Progress | None
) -> Pictures:
    data: DataConfig = meta.config.data
    labelled = None if progress is None else lambda _, done, total: progress(done, total)
    assert source.root is not None, "a split belongs to a data set"
    root = on_this_machine(
        source.root,
        cache_dir if cache_dir is not None else default_cache_dir().absolute(),
        [data.form],
        (source.split,),
        progress=labelled,
        reading=data.label_reading,
    )
    looking = None if labelled is None else looking_with(labelled)
    follow_links = data.follow_links or source.follow_links
    dataset = read_dataset(root, follow_links, on_error, progress, data.label_reading, looking)
    require_attributes(meta, dataset.attributes, str(source.root))
    seen = dataset.folds is not None and source.split in LABELLED
    notes = (SEEN.format(split=source.split),) if seen else ()
    dataset = dataset.as_listed
    listed = (dataset.whole or dataset).splits
    if source.split not in listed:
        place, fix = f"{source.root}/{dataset.place(source.split)}", f"It has {', '.join(listed)}"
        raise DataError("The data set has no such split:", [Problem(place, "is missing", fix=fix)])
    told: dict[str, Any] = {
        "notes": notes,
        "file_column": dataset.file_column,
        "submission": dataset.form == CHALLENGE,
    }
    if dataset.whole is not None and source.split in dataset.skipped_counts():
        # Each line of the split's list gets a row, those without a prediction too.
        split = listed[source.split]
        return Pictures(split.images, FilePixels(dataset.root, split.images, data.form), on_error, split.labels, **told)
    pack = Pack.open_or_build(dataset, source.split, *data.form, cache_dir=cache_dir, progress=progress)
    return Pictures(pack.names, PackPixels(pack), on_error, pack.labels, **told)
