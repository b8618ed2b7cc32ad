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
import struct
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image

from fashion.data.layout import Dataset
from fashion.errors import DataError, Problem, UserError

Progress = Callable[[int, int], None]
FORMAT_VERSION = 1
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
# Named, because Pillow would otherwise try every plug-in it has, one of which starts Ghostscript.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
PAD_COLOUR = (124, 116, 104)  # ImageNet's mean: close to zero once normalised
_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
_DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error, Image.DecompressionBombError)
_SAMPLED = 16  # rows whose checksum is compared on every opening


def load_rgb(path: str | Path) -> Image.Image:
    """Decode one file to an RGB image; raises DataError when it can't be read or is a decompression bomb.

    EXIF orientation is not applied (as in the report's pipeline). Transparent pixels become white; 16-bit greys
    are scaled to 8 bits.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            limit = Image.MAX_IMAGE_PIXELS
            if limit is not None and image.width * image.height > limit:
                raise Image.DecompressionBombError(f"{image.width}x{image.height} pixels, more than {limit}")
            image.load()
            return _to_rgb(image)
    except _DECODE_ERRORS as error:
        raise DataError("An image can't be used:", [Problem(str(path), "must be a complete image", str(error))]) from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        grey = np.asarray(image).astype(np.float64)
        grey = grey / 257 if grey.max(initial=0) > 255 else grey
        image = Image.fromarray(grey.clip(0, 255).round().astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def resize_square(image: Image.Image, size: int, fit: str, interpolation: str) -> NDArray[np.uint8]:
    """(size, size, 3) uint8 of an RGB image; `stretch` equals torchvision's Resize((size, size)) on the PIL image.

    `pad` scales the longer side to `size` and centres the result on ImageNet's mean colour.
    """
    if fit == "stretch":
        return np.asarray(image.resize((size, size), _FILTERS[interpolation]))
    if fit != "pad":
        raise ValueError(f"fit is stretch or pad, not {fit!r}")
    longest = max(image.size)
    width, height = (max(1, round(side * size / longest)) for side in image.size)
    square = Image.new("RGB", (size, size), PAD_COLOUR)
    square.paste(image.resize((width, height), _FILTERS[interpolation]), ((size - width) // 2, (size - height) // 2))
    return np.asarray(square)


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
            wrong = pack._wrong_rows(range(len(pack)) if verify else np.linspace(0, len(pack) - 1, _SAMPLED).astype(int))
        except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
            raise DataError("The image cache can't be used:", [Problem(str(path), "must be a whole cache file", str(error), "Delete it.")]) from error
        if wrong:
            raise DataError("The image cache is damaged:", [Problem(str(path), "pixels equal their checksums", f"row {wrong[0]}", "Delete it.")])
        return pack

    @classmethod
    def _mapped(cls, path: Path) -> Pack:
        _check_seal(path)  # first, since Arrow follows whatever offsets it finds, also out of the mapping
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
        leaves nothing behind that could be taken for a cache. Raises DataError listing every image that can't be used,
        UserError when the cache folder can't be written.
        """
        metadata = {"format": str(FORMAT_VERSION), "fingerprint": dataset.fingerprint(), "split": split_name,
                    "resize": str(resize), "fit": fit, "interpolation": interpolation, "rows": str(len(dataset.splits[split_name]))}  # fmt: skip
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
            raise UserError(f"The image cache can't be written in {folder}: {error}. Set FASHION_CACHE to a folder with room.") from error
        return pack if pack is not None else cls.open(path)

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
        same_labels = (pack.labels is None) == (split.labels is None) and np.array_equal(pack.labels, split.labels)  # type: ignore[arg-type]
        return pack if pack.metadata == metadata and pack.names == list(split.images) and same_labels else None


def default_cache_dir() -> Path:
    """$FASHION_CACHE, or ~/.cache/fashion-sweep."""
    return Path(os.environ.get("FASHION_CACHE") or "~/.cache/fashion-sweep").expanduser()


def pack_folder(
    directory: str | Path, resize: int, fit: str = "stretch", interpolation: str = "bicubic", progress: Progress | None = None
) -> tuple[list[str], NDArray[np.uint8]]:
    """Names relative to `directory`, sorted, and pixels (N, S, S, 3) of all images under any folder, in memory.

    Raises DataError when there are none, or listing every one that can't be read.
    """
    root = Path(directory)
    names = sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
    if not names:
        raise DataError("There is nothing to predict:", [Problem(str(root), f"must hold images ({', '.join(IMAGE_SUFFIXES)})")])
    images = np.empty((len(names), resize, resize, 3), np.uint8)
    _decode_into(images, np.empty(len(names), np.uint32), root, names, fit, interpolation, progress)
    return names, images


def _build(path: Path, dataset: Dataset, metadata: dict[str, str], progress: Progress | None) -> None:
    """Write the file with zeros for pixels, then decode into it in place: no copy in memory, whatever its size."""
    split, size = dataset.splits[metadata["split"]], int(metadata["resize"])
    need, free = len(split) * size * size * 3, shutil.disk_usage(path.parent).free
    if need * 1.02 > free:
        raise UserError(f"The image cache needs {need / 1e9:.1f} GB in {path.parent}, where {free / 1e9:.1f} GB are free. Set FASHION_CACHE.")
    temporary = path.with_name(f".{path.name}.tmp")  # one name, held by the lock: a killed builder's file is overwritten
    try:
        pixels_at, checksums_at = _write_frame(temporary, split.images, split.labels, size, metadata)
        images = np.memmap(temporary, np.uint8, "r+", pixels_at, (len(split), size, size, 3))
        checksums = np.memmap(temporary, np.uint32, "r+", checksums_at, (len(split),))
        _decode_into(images, checksums, dataset.root, split.images, metadata["fit"], metadata["interpolation"], progress)
        images.flush()
        checksums.flush()
        _write_seal(path, temporary, pixels_at, images.nbytes)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_frame(path: Path, names: Sequence[str], labels: NDArray[np.int64] | None, size: int, metadata: dict[str, str]) -> tuple[int, int]:
    """Write the Arrow file with empty pixels; returns where pixels and checksums begin in it, in bytes."""
    count, row = len(names), size * size * 3
    # Anonymous memory that is never touched costs nothing, but real zeros reach the file: a full disk shows here
    # as an error, and not later as a bus error in the mapping.
    empty = pa.FixedSizeBinaryArray.from_buffers(pa.binary(row), count, [None, pa.py_buffer(np.zeros(count * row, np.uint8))])
    columns = {"name": pa.array(names, pa.string()), "crc32": pa.array(np.zeros(count, np.uint32)), "pixels": empty}
    if labels is not None:
        columns["labels"] = pa.FixedSizeListArray.from_arrays(pa.array(labels.reshape(-1)), labels.shape[1])
    batch = pa.record_batch(columns).replace_schema_metadata(metadata)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    with pa.memory_map(str(path)) as source:
        start = source.read_buffer(1).address
        written = pa.ipc.open_file(source).get_batch(0)
        return tuple(written.column(column).buffers()[1].address - start for column in ("pixels", "crc32"))  # type: ignore[return-value]


def _write_seal(path: Path, written: Path, pixels_at: int, length: int) -> None:
    """Beside the cache file: its size, where its pixels are, and a digest of everything else in it."""
    seal = {"size": written.stat().st_size, "pixels": [pixels_at, length], "frame": _frame_digest(written, pixels_at, length)}
    temporary = _seal_path(path).with_suffix(".tmp")
    temporary.write_text(json.dumps(seal))
    os.replace(temporary, _seal_path(path))


def _check_seal(path: Path) -> None:
    """Raise ValueError unless the file has its size and all but its pixels is as it was written."""
    seal = json.loads(_seal_path(path).read_text())
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


def _decode_into(
    images: NDArray[np.uint8], checksums: NDArray[np.uint32], root: Path, names: Sequence[str], fit: str, interpolation: str, progress: Progress | None
) -> None:
    """Decode and resize all images with one thread a CPU (Pillow leaves Python's lock while it does)."""

    def decode(row: int) -> Problem | None:
        try:
            images[row] = resize_square(load_rgb(root / names[row]), images.shape[1], fit, interpolation)
        except DataError as error:
            return error.problems[0]
        checksums[row] = zlib.crc32(images[row])
        return None

    problems = []
    pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    try:
        for done, problem in enumerate(pool.map(decode, range(len(names))), start=1):
            if problem is not None:
                problems.append(problem)
            if progress is not None:
                progress(done, len(names))
    finally:
        pool.shutdown(cancel_futures=True)  # so that Ctrl-C does not wait for thousands of images
    if problems:
        raise DataError("Images can't be used:", problems)
