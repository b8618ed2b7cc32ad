"""Images divided by `data.split` or `data.folds`: the same division on every machine, computed once on each.

Images that must stay together are one unit: those of one group, and those with the same bytes. Units are taken in the
order of a hash of the seed and their names, so that neither the order of the label file nor a generator decides.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fashion.data.contents import default_cache_dir, status_digest
from fashion.data.lists import Attribute
from fashion.data.splits.stratify import stratify
from fashion.files import write_atomic

VERSION = 1  # of the procedure: another one would give other divisions
_known: dict[str, NDArray[np.uint8]] = {}  # of this process, for a cache folder that can't be written


@dataclass(frozen=True, eq=False)
class Undivided:
    """What is to be divided.

    images: N names below `root`, with labels (N, columns). groups: N values, of which equal ones stay on one side, or
    none; an image whose value is None is on its own.
    """

    root: Path
    images: Sequence[str]
    labels: NDArray[np.int64]
    attributes: Sequence[Attribute]
    groups: Sequence[str | None]


def divide(undivided: Undivided, shares: Sequence[float], seed: int) -> NDArray[np.uint8]:
    """The side of each image (N), a number below that of `shares`, which add up to 1: stratified over all attributes at
    once, no group and no two images with the same bytes on two sides.

    Raises DataError where an image can't be read.
    """
    named = [(attribute.name, attribute.columns) for attribute in undivided.attributes]
    said = hashlib.sha256(repr((VERSION, tuple(shares), seed, named)).encode())
    said.update(status_digest(undivided.root, undivided.images).encode())
    said.update(np.ascontiguousarray(undivided.labels).astype("<i8").tobytes())
    said.update(repr(list(undivided.groups)).encode())
    key = said.hexdigest()
    if key not in _known:
        kept = default_cache_dir() / "splits" / key
        found = _read(kept, len(undivided.images), len(shares))
        if found is None:
            found = _computed(undivided, shares, seed)
            with contextlib.suppress(OSError):  # it only saves time: a full cache folder is no reason to stop
                kept.parent.mkdir(parents=True, exist_ok=True)
                write_atomic(kept, found.tobytes())
        _known[key] = found
    return _known[key]


def _read(kept: Path, count: int, sides: int) -> NDArray[np.uint8] | None:
    """The division that was kept; None where it is missing or damaged."""
    try:
        found = np.frombuffer(kept.read_bytes(), np.uint8)
    except OSError:
        return None
    return found if len(found) == count and (found < sides).all() else None


def _computed(undivided: Undivided, shares: Sequence[float], seed: int) -> NDArray[np.uint8]:
    images = undivided.images
    unit_of = units(len(images), [images, undivided.groups, same_bytes(undivided.root, images)])
    members: dict[int, list[int]] = {}
    for row, unit in enumerate(unit_of):
        members.setdefault(unit, []).append(row)

    def drawn(rows: Sequence[int]) -> bytes:
        return min(hashlib.sha256(f"{seed}\0{images[row]}".encode()).digest() for row in rows)

    ordered = sorted(members.values(), key=drawn)
    counts = [_label_counts(undivided.labels[rows], undivided.attributes) for rows in ordered]
    chosen = stratify(counts, [len(rows) for rows in ordered], shares)
    found = np.zeros(len(images), np.uint8)
    for rows, to in zip(ordered, chosen, strict=True):
        found[rows] = to
    return found


def _label_counts(labels: NDArray[np.int64], attributes: Sequence[Attribute]) -> dict[int, int]:
    """How many of the images (n, columns) have each label; labels of all attributes are numbered in one row."""
    counts: Counter[int] = Counter()
    for row in labels.tolist():
        first = column = 0
        for attribute in attributes:
            if attribute.multi_label:
                mine = row[column : column + attribute.columns]
                counts.update(first + number for number, held in enumerate(mine) if held > 0)
            elif row[column] >= 0:
                counts[first + row[column]] += 1
            first, column = first + len(attribute.classes), column + attribute.columns
    return dict(counts)


def units(count: int, keys: Iterable[Sequence[Hashable]]) -> list[int]:
    """The first row of the unit of each of `count` rows: rows that share a value of some key, directly or over other
    rows, are one unit. A key has a value for each row, None for none, or no values at all."""
    parent = list(range(count))

    def top(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for key in keys:
        first: dict[Hashable, int] = {}
        for row, value in enumerate(key):
            if value is not None:
                one, other = top(first.setdefault(value, row)), top(row)
                parent[max(one, other)] = min(one, other)
    return [top(row) for row in range(count)]


def same_bytes(root: Path, images: Sequence[str]) -> list[bytes | None]:
    """A digest of each image whose size another one has, too; None for the others, which have no twin."""
    sizes = {image: os.path.getsize(root / image) for image in set(images)}
    times = Counter(sizes.values())
    digests: dict[str, bytes] = {}
    for image, size in sizes.items():
        if times[size] > 1:
            with open(root / image, "rb") as file:
                digests[image] = hashlib.file_digest(file, "sha256").digest()
    return [digests.get(image) for image in images]
