"""The image cache: every image decoded and resized once, in one memory-mapped Arrow file.

There is one file per (data fingerprint, split, form): `config.Form` says how an image becomes a square. Its single
record batch makes all pixels one contiguous buffer, so a mapped file gives a (N, S, S, 3) view without copying, and all
trials and workers of a machine share its pages. A seal beside it (NAME.arrow.seal) tells a whole file from a damaged
one before anything is mapped.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fashion.config.base import OF_ITS_TIME
from fashion.config.data import Form
from fashion.data.cache.arrays import SAMPLED, SUMS, Rows, Unfinished
from fashion.data.cache.arrow_files import check_seal
from fashion.data.cache.use import keep_open
from fashion.data.contents import default_cache_dir
from fashion.data.images import Progress, decode_into
from fashion.data.layout import Dataset
from fashion.errors import BlockedError, DataError, Problem
from fashion.files import KernelLock

FORMAT_VERSION = 1
COLUMN = "pixels"


class Pack:
    """A mapped cache file: `images` (N, S, S, 3) uint8, their `names`, `labels` (N, heads) or None, and `checksums`
    (N,) uint32, the CRC-32 of each image's bytes.

    Made by `open_or_build` or, for an existing file, by `open`. Pickled as its path.
    """

    def __init__(self, path: Path, batch: pa.RecordBatch, metadata: dict[str, str]) -> None:
        self.path = path
        self.metadata = metadata
        size = int(metadata["resize"])
        pixels = np.frombuffer(batch.column(COLUMN).buffers()[1], np.uint8)
        self.images: NDArray[np.uint8] = pixels.reshape(len(batch), size, size, 3)
        self.names: list[str] = batch.column("name").to_pylist()
        self.checksums = batch.column(SUMS).to_numpy()
        self.labels: NDArray[np.int64] | None = None
        if "labels" in batch.schema.names:
            self.labels = batch.column("labels").flatten().to_numpy().reshape(len(batch), -1)

    def __len__(self) -> int:
        return len(self.images)

    def __reduce__(self) -> tuple[Any, ...]:
        return (Pack.open, (self.path,))

    @classmethod
    def open(cls, path: str | Path, verify: bool = False) -> Pack:
        """Map a cache file. Raises DataError where it is not whole; `verify` reads every pixel to find out."""
        path = Path(path)
        try:
            pack = cls._mapped(path)
            wrong = pack._wrong_rows(range(len(pack)) if verify else np.linspace(0, len(pack) - 1, SAMPLED).astype(int))
        except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
            problem = Problem(str(path), "must be a whole cache file", str(error), "Delete it")
            raise DataError("The image cache can't be used:", [problem]) from error
        if wrong:
            problem = Problem(str(path), "pixels must match their checksums", f"row {wrong[0]}", "Delete it")
            raise DataError("The image cache is damaged:", [problem])
        return pack

    @classmethod
    def _mapped(cls, path: Path) -> Pack:
        check_seal(path)  # first, since Arrow follows any offset that it finds, even out of the mapping
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        metadata = {key.decode(): value.decode() for key, value in (reader.schema.metadata or {}).items()}
        if metadata.get("format") != str(FORMAT_VERSION) or reader.num_record_batches != 1:
            raise ValueError(f"format {metadata.get('format')}, not {FORMAT_VERSION}")
        return cls(path, reader.get_batch(0), metadata)

    def _wrong_rows(self, rows: Sequence[int] | NDArray[np.int64] | range) -> list[int]:
        return [int(row) for row in rows if zlib.crc32(self.images[row]) != self.checksums[row]]

    @classmethod
    def open_or_build(
        cls,
        dataset: Dataset,
        split_name: str,
        resize: int,
        fit: str = "stretch",
        interpolation: str = "bicubic",
        orientation: str = "apply",
        depth: str = "declared",
        cache_dir: str | Path | None = None,
        progress: Progress | None = None,
        verify: bool = False,
    ) -> Pack:
        """The cache of one split, built first if it is missing, stale, truncated or damaged.

        Processes that ask at the same time wait for one builder. The file appears by a rename, so a killed builder
        leaves nothing behind that could be taken for a cache; the next one goes on with it. If the data set holds
        packed images, the pack there is opened and nothing is built.

        Raises:
            DataError: some images can't be used, of which it lists every one; or packed images are missing or damaged.
            BlockedError: the cache folder can't be written or is full.
        """
        form = Form(resize, fit, interpolation, orientation, depth)
        metadata = {
            "format": str(FORMAT_VERSION),
            "fingerprint": dataset.fingerprint(),
            "split": split_name,
            **_form_as_metadata(form),
            "rows": str(len(dataset.splits[split_name])),
        }
        if dataset.packed is not None:
            return cls._pushed(dataset, form, metadata, verify)
        folder = Path(cache_dir) if cache_dir is not None else default_cache_dir()
        path = folder / f"{metadata['fingerprint']}-{split_name}-{form}-v{FORMAT_VERSION}.arrow"
        pack = cls._kept(path, dataset, metadata, verify)
        if pack is not None:
            return pack
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with KernelLock(f"{path}.lock"):
                pack = cls._kept(path, dataset, metadata, verify)
                if pack is None:
                    _build(path, dataset, form, metadata, progress)
                    pack = cls.open(path)
                    keep_open(path, pack)
        except OSError as error:
            raise BlockedError(
                f"The image cache can't be written in {folder}: {error}. Set FASHION_CACHE to a folder with room."
            ) from error
        return pack

    @classmethod
    def _kept(cls, path: Path, dataset: Dataset, metadata: dict[str, str], verify: bool) -> Pack | None:
        """The pack if its file is whole, and kept in the cache as long as the pack lives; None if it must be built."""
        pack = cls._valid(path, dataset, metadata, verify)
        if pack is not None:
            try:
                keep_open(path, pack)
            except FileNotFoundError:  # removed in this moment
                return None
        return pack

    @classmethod
    def _pushed(cls, dataset: Dataset, form: Form, metadata: dict[str, str], verify: bool) -> Pack:
        """The packed cache that replaces the images."""
        assert dataset.packed is not None
        for file in dataset.packed.wanted([metadata["split"]], [form], str(dataset.root)):
            path = dataset.root / file.path
            pack = cls._valid(path, dataset, metadata, verify)
            if pack is None:
                rule = f"must be a whole cache file of format {FORMAT_VERSION} that matches the lists"
                fix = "Delete it: if the data set is in a bucket, it is fetched again"
                raise DataError("Packed images can't be used:", [Problem(str(path), rule, fix=fix)])
            return pack
        rule = f"no images of split {metadata['split']} were pushed"
        raise DataError("Packed images are missing:", [Problem(str(dataset.root), rule, fix="Push them again")])

    @classmethod
    def _valid(cls, path: Path, dataset: Dataset, metadata: dict[str, str], verify: bool) -> Pack | None:
        """The pack if its file is whole and of this data set, None if it must be built."""
        split = dataset.splits[metadata["split"]]
        return cls.open_if_of(path, metadata, split.images, split.labels, verify)

    @classmethod
    def open_if_of(
        cls, path: Path, metadata: dict[str, str], names: Sequence[str], labels: NDArray[np.int64] | None, verify: bool
    ) -> Pack | None:
        """The pack if its file is whole and holds just this, None if it must be built."""
        if not path.exists():
            return None
        try:
            pack = cls.open(path, verify)
        except DataError:
            return None  # a damaged cache is rebuilt, never a reason to stop
        if pack.labels is None or labels is None:
            same_labels = pack.labels is labels
        else:
            same_labels = np.array_equal(pack.labels, labels)
        return pack if pack.metadata == metadata and pack.names == list(names) and same_labels else None


def _form_as_metadata(form: Form) -> dict[str, str]:
    """What a cache file says of its form. A setting with the value of files that lack it is left out, so that those
    files stay valid."""
    fields = form._asdict()
    return {name: str(value) for name, value in fields.items() if value != OF_ITS_TIME.get(f"data.{name}")}


def _build(path: Path, dataset: Dataset, form: Form, metadata: dict[str, str], progress: Progress | None) -> None:
    """Decode into the file in place: pixels are never copied in memory."""
    split = dataset.splits[metadata["split"]]
    file = begin_pack(path, split.images, split.labels, form.resize, metadata)
    done = file.done(progress)

    def told(count: int, _: int) -> None:
        if progress is not None:
            progress(done + count, len(split))

    try:
        decode_into(file.rows[done:], file.sums[done:], dataset.root, split.images[done:], form, told)
    except DataError:
        file.discard()  # with the images mended it would be another file
        raise
    file.finish()


def begin_pack(
    path: Path, names: Sequence[str], labels: NDArray[np.int64] | None, size: int, metadata: dict[str, str]
) -> Unfinished:
    """The file of such a cache, of zeros for pixels or as an interrupted process has left it. Raises BlockedError where
    there is no room."""
    others = {"name": pa.array(names, pa.string())}
    if labels is not None:
        others["labels"] = pa.FixedSizeListArray.from_arrays(pa.array(labels.reshape(-1)), labels.shape[1])
    return Unfinished.begin(
        "The image cache", path, COLUMN, Rows(len(names), (size, size, 3), np.uint8), metadata, others
    )
