"""The image cache: every image decoded and resized once, in one memory-mapped Arrow file.

One file per (data fingerprint, split, resize, fit, interpolation), with a single record batch, so that all pixels form
one contiguous buffer and a mapped file gives a (N, S, S, 3) view without copying. All trials and workers of a machine
share its pages. A seal beside it (NAME.arrow.seal) tells a whole file from a damaged one before anything is mapped.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from filelock import FileLock
from numpy.typing import NDArray

from fashion.data.contents import default_cache_dir
from fashion.data.images import IMAGE_SUFFIXES, Progress, decode_into
from fashion.data.layout import Dataset
from fashion.errors import BlockedError, DataError, Problem

FORMAT_VERSION = 1
_SAMPLED = 16  # rows whose checksum is compared on every opening


class Pack:
    """A mapped cache file. Pickles by its path. Made by `open_or_build` or, for an existing file, `open`."""

    def __init__(self, path: Path, batch: pa.RecordBatch, metadata: dict[str, str]) -> None:
        self.path = path
        self.metadata = metadata
        size = int(metadata["resize"])
        pixels = np.frombuffer(batch.column("pixels").buffers()[1], np.uint8)
        self.images: NDArray[np.uint8] = pixels.reshape(len(batch), size, size, 3)
        self.names: list[str] = batch.column("name").to_pylist()
        self._checksums = batch.column("crc32").to_numpy()
        self.labels: NDArray[np.int64] | None = None
        if "labels" in batch.schema.names:
            self.labels = batch.column("labels").flatten().to_numpy().reshape(len(batch), -1)

    def __len__(self) -> int:
        return len(self.images)

    def __reduce__(self) -> tuple[Any, ...]:
        return (Pack.open, (self.path,))

    @classmethod
    def open(cls, path: str | Path, verify: bool = False) -> Pack:
        """Map a cache file; raises DataError when it is not a whole one. `verify` reads every pixel."""
        path = Path(path)
        try:
            pack = cls._mapped(path)
            wrong = pack._wrong_rows(
                range(len(pack)) if verify else np.linspace(0, len(pack) - 1, _SAMPLED).astype(int)
            )
        except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
            raise DataError(
                "The image cache can't be used:",
                [Problem(str(path), "must be a whole cache file", str(error), "Delete it.")],
            ) from error
        if wrong:
            raise DataError(
                "The image cache is damaged:",
                [Problem(str(path), "pixels equal their checksums", f"row {wrong[0]}", "Delete it.")],
            )
        return pack

    @classmethod
    def _mapped(cls, path: Path) -> Pack:
        check_seal(path)  # first, since Arrow follows whatever offsets it finds, also out of the mapping
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        metadata = {key.decode(): value.decode() for key, value in (reader.schema.metadata or {}).items()}
        if metadata.get("format") != str(FORMAT_VERSION) or reader.num_record_batches != 1:
            raise ValueError(f"format {metadata.get('format')}, not {FORMAT_VERSION}")
        return cls(path, reader.get_batch(0), metadata)

    def _wrong_rows(self, rows: Sequence[int] | NDArray[np.int64] | range) -> list[int]:
        return [int(row) for row in rows if zlib.crc32(self.images[row]) != self._checksums[row]]

    @classmethod
    def open_or_build(
        cls,
        dataset: Dataset,
        split_name: str,
        resize: int,
        fit: str = "stretch",
        interpolation: str = "bicubic",
        cache_dir: str | Path | None = None,
        progress: Progress | None = None,
        verify: bool = False,
    ) -> Pack:
        """The cache of one split, built first where it is missing, stale, truncated or damaged.

        Processes that ask at the same time wait for one builder. The file appears by a rename, so a killed builder
        leaves nothing behind that could be taken for a cache. Of a data set that holds packed images it is the file there,
        and nothing is built. Raises DataError listing every image that can't be used, BlockedError when the cache folder
        can't be written.
        """
        metadata = {
            "format": str(FORMAT_VERSION),
            "fingerprint": dataset.fingerprint(),
            "split": split_name,
            "resize": str(resize),
            "fit": fit,
            "interpolation": interpolation,
            "rows": str(len(dataset.splits[split_name])),
        }
        if dataset.packed is not None:
            return cls._pushed(dataset, metadata, verify)
        folder = Path(cache_dir) if cache_dir is not None else default_cache_dir()
        path = folder / f"{metadata['fingerprint']}-{split_name}-{resize}-{fit}-{interpolation}-v{FORMAT_VERSION}.arrow"
        pack = cls._valid(path, dataset, metadata, verify)
        if pack is not None:
            return pack
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{path}.lock"):
                pack = cls._valid(path, dataset, metadata, verify)
                if pack is None:
                    _build(path, dataset, metadata, progress)
        except OSError as error:
            raise BlockedError(
                f"The image cache can't be written in {folder}: {error}. Set FASHION_CACHE to a folder with room."
            ) from error
        return pack if pack is not None else cls.open(path)

    @classmethod
    def _pushed(cls, dataset: Dataset, metadata: dict[str, str], verify: bool) -> Pack:
        """The cache that stands in the images' place."""
        assert dataset.packed is not None
        form = int(metadata["resize"]), metadata["fit"], metadata["interpolation"]
        for file in dataset.packed.wanted([metadata["split"]], [form], str(dataset.root)):
            path = dataset.root / file.path
            pack = cls._valid(path, dataset, metadata, verify)
            if pack is None:
                fix = "Delete it: of a data set in a bucket it is then fetched anew"
                raise DataError(
                    "Packed images can't be used:",
                    [
                        Problem(
                            str(path), f"must be a whole cache file of format {FORMAT_VERSION} of these lists", fix=fix
                        )
                    ],
                )
            return pack
        raise DataError(
            "Packed images are missing:",
            [Problem(str(dataset.root), f"no images of split {metadata['split']} were pushed", fix="Push them again")],
        )

    @classmethod
    def _valid(cls, path: Path, dataset: Dataset, metadata: dict[str, str], verify: bool) -> Pack | None:
        """The pack if its file is whole and of this data set, None when it must be built."""
        if not path.exists():
            return None
        try:
            pack = cls.open(path, verify)
        except DataError:
            return None  # a damaged cache is rebuilt, never a reason to stop
        split = dataset.splits[metadata["split"]]
        if pack.labels is None or split.labels is None:
            same_labels = pack.labels is split.labels
        else:
            same_labels = np.array_equal(pack.labels, split.labels)
        return pack if pack.metadata == metadata and pack.names == list(split.images) and same_labels else None


def pack_folder(
    directory: str | Path,
    resize: int,
    fit: str = "stretch",
    interpolation: str = "bicubic",
    progress: Progress | None = None,
) -> tuple[list[str], NDArray[np.uint8]]:
    """Names relative to `directory`, sorted, and pixels (N, S, S, 3) of all images under any folder, in memory.

    Raises DataError when there are none, or listing every one that can't be read.
    """
    root = Path(directory)
    names = sorted(
        p.relative_to(root).as_posix() for p in root.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()
    )
    if not names:
        raise DataError(
            "There is nothing to predict:", [Problem(str(root), f"must hold images ({', '.join(IMAGE_SUFFIXES)})")]
        )
    foreign = [Problem(str(root), "a file's name must be UTF-8", ascii(name)) for name in names if not _utf8(name)]
    if foreign:
        raise DataError("Images can't be used:", foreign)
    images = np.empty((len(names), resize, resize, 3), np.uint8)
    decode_into(images, np.empty(len(names), np.uint32), root, names, fit, interpolation, progress)
    return names, images


def _utf8(name: str) -> bool:
    """Whether a file's name is text: other bytes are surrogates in it, which no file of predictions can hold."""
    return not any("\ud800" <= each <= "\udfff" for each in name)


def _build(path: Path, dataset: Dataset, metadata: dict[str, str], progress: Progress | None) -> None:
    """Write the file with zeros for pixels, then decode into it in place: no copy in memory, whatever its size."""
    split, size = dataset.splits[metadata["split"]], int(metadata["resize"])
    need, free = len(split) * size * size * 3, shutil.disk_usage(path.parent).free
    if need * 1.02 > free:
        raise BlockedError(
            f"The image cache needs {need / 1e9:.1f} GB in {path.parent}, where {free / 1e9:.1f} GB are free. "
            "Set FASHION_CACHE to a folder with room."
        )
    # One name, held by the lock: what a killed builder left is overwritten.
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        pixels_at, checksums_at = _write_frame(temporary, split.images, split.labels, size, metadata)
        images = np.memmap(temporary, np.uint8, "r+", pixels_at, (len(split), size, size, 3))
        checksums = np.memmap(temporary, np.uint32, "r+", checksums_at, (len(split),))
        decode_into(images, checksums, dataset.root, split.images, metadata["fit"], metadata["interpolation"], progress)
        images.flush()
        checksums.flush()
        write_seal(path, temporary, pixels_at, images.nbytes)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_frame(
    path: Path, names: Sequence[str], labels: NDArray[np.int64] | None, size: int, metadata: dict[str, str]
) -> tuple[int, int]:
    """Write the Arrow file with empty pixels; returns where pixels and checksums begin in it, in bytes."""
    count, row = len(names), size * size * 3
    # Anonymous memory that is never touched costs nothing, but real zeros reach the file: a full disk shows here
    # as an error, and not later as a bus error in the mapping.
    empty = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(row), count, [None, pa.py_buffer(np.zeros(count * row, np.uint8))]
    )
    columns = {"name": pa.array(names, pa.string()), "crc32": pa.array(np.zeros(count, np.uint32)), "pixels": empty}
    if labels is not None:
        columns["labels"] = pa.FixedSizeListArray.from_arrays(pa.array(labels.reshape(-1)), labels.shape[1])
    batch = pa.record_batch(columns).replace_schema_metadata(metadata)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    with pa.memory_map(str(path)) as source:
        start = source.read_buffer(1).address
        written = pa.ipc.open_file(source).get_batch(0)
        pixels_at, checksums_at = (written.column(name).buffers()[1].address - start for name in ("pixels", "crc32"))
        return pixels_at, checksums_at


def write_seal(path: Path, written: Path, pixels_at: int = 0, length: int = 0) -> None:
    """Beside the cache file: its size, where its pixels are, and a digest of everything else in it (of all, by default)."""
    seal = {
        "size": written.stat().st_size,
        "pixels": [pixels_at, length],
        "frame": _frame_digest(written, pixels_at, length),
    }
    put_seal(path, seal)


def put_seal(path: Path, seal: Mapping[str, Any]) -> None:
    """Write what `read_seal` of this file read elsewhere."""
    temporary = _seal_path(path).with_suffix(".tmp")
    try:
        temporary.write_text(json.dumps(seal))
        os.replace(temporary, _seal_path(path))
    finally:
        temporary.unlink(missing_ok=True)


def read_seal(path: Path) -> dict[str, Any]:
    seal: dict[str, Any] = json.loads(_seal_path(path).read_text())
    return seal


def check_seal(path: Path) -> None:
    """Raise ValueError unless the file has its size and all but its pixels is as it was written."""
    seal = read_seal(path)
    (start, length), size = seal["pixels"], path.stat().st_size
    if size != seal["size"] or not 0 <= start <= start + length <= size:
        raise ValueError(f"{size} bytes, not {seal['size']}")
    if _frame_digest(path, start, length) != seal["frame"]:
        raise ValueError("its digest differs")


def _seal_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.seal")


def _frame_digest(path: Path, start: int, length: int) -> str:
    with open(path, "rb") as file:
        digest = hashlib.sha256(file.read(start))
        file.seek(start + length)
        digest.update(file.read())
    return digest.hexdigest()
