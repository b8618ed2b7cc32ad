"""Arrow files of one record batch that are filled in place, and the seals that tell a whole file from a damaged one.

A seal (NAME.arrow.seal) lies beside its file. It is looked at before anything is mapped.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from fashion.files import write_atomic

_PIECE = 1 << 20  # bytes of a file that are in memory at a time while it is digested


def zeros(length: int) -> pa.Buffer:
    """`length` zero bytes that take no memory, however many they are.

    Written to a file they are real, so that a full disk raises an error there, instead of a bus error later in a
    mapping of that file. Memory that can't be written to is not counted against what the machine has either.
    """
    return pa.py_buffer(mmap.mmap(-1, length, mmap.MAP_PRIVATE, mmap.PROT_READ) if length else b"")


def write_frame(
    path: Path, columns: Mapping[str, pa.Array], wanted: Sequence[str], metadata: Mapping[str, str] | None = None
) -> list[int]:
    """Write an Arrow file of one batch. Returns where in it the values of the `wanted` columns begin, in bytes, so that
    they can be filled in place."""
    batch = pa.record_batch(dict(columns)).replace_schema_metadata(metadata)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return positions(path, wanted)


def positions(path: Path, wanted: Sequence[str]) -> list[int]:
    """Where in an Arrow file of one batch the values of the `wanted` columns begin, in bytes."""
    with pa.memory_map(str(path)) as source:
        start = source.read_buffer(1).address
        written = pa.ipc.open_file(source).get_batch(0)
        return [written.column(name).buffers()[-1].address - start for name in wanted]


def write_seal(path: Path, written: Path, pixels_at: int = 0, length: int = 0) -> None:
    """Write the seal of the cache file `path`, whose content is in `written`.

    It holds the size, the position of the pixels, and a digest of everything but the pixels (of the whole file by
    default).
    """
    seal = {
        "size": written.stat().st_size,
        "pixels": [pixels_at, length],
        "frame": _frame_digest(written, pixels_at, length),
    }
    put_seal(path, seal)


def put_seal(path: Path, seal: Mapping[str, Any]) -> None:
    """Write a seal that `read_seal` has read from the same file elsewhere."""
    write_atomic(seal_path(path), json.dumps(seal).encode())


def read_seal(path: Path) -> dict[str, Any]:
    """The seal of a cache file. Raises OSError or ValueError where there is no such seal."""
    seal: dict[str, Any] = json.loads(seal_path(path).read_text())
    return seal


def check_seal(path: Path) -> None:
    """Raise ValueError unless the file has the size in its seal and everything but its pixels is as it was written."""
    seal = read_seal(path)
    (start, length), size = seal["pixels"], path.stat().st_size
    if size != seal["size"] or not 0 <= start <= start + length <= size:
        raise ValueError(f"{size} bytes, not {seal['size']}")
    if _frame_digest(path, start, length) != seal["frame"]:
        raise ValueError("its digest differs")


def seal_path(path: Path) -> Path:
    """Where the seal of a cache file is."""
    return path.with_name(f"{path.name}.seal")


def temporary_path(path: Path) -> Path:
    """Where a cache file is while it is being written: always the same place, held by the file's lock."""
    return path.with_name(f".{path.name}.tmp")


def _frame_digest(path: Path, start: int, length: int) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        _digest_into(digest, file, start)
        file.seek(start + length)
        _digest_into(digest, file, path.stat().st_size - start - length)
    return digest.hexdigest()


def _digest_into(digest: hashlib._Hash, file: BinaryIO, length: int) -> None:
    """The next `length` bytes of the file, a piece at a time: a file of features is digested whole."""
    while length > 0 and (piece := file.read(min(length, _PIECE))):
        digest.update(piece)
        length -= len(piece)
