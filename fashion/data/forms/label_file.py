"""A label file: a row for each image, with its file, its labels and, if the data have splits, its split."""

from __future__ import annotations

import os
import stat
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fashion.config.data import LabelReading
from fashion.data.forms.cells import LabelTable
from fashion.data.forms.classes import CellCodes, labels_of
from fashion.data.forms.columns import SPLIT_WORDS, ColumnRoles, roles_of
from fashion.data.forms.images import look_at, read_packed, report_links
from fashion.data.forms.rows import READERS, open_table
from fashion.data.forms.sidecar import LabelsDescription, image_folder, read_sidecar
from fashion.data.lists import INSIDE, Attribute, Looking, Scan
from fashion.data.splits.assign import assign_splits
from fashion.errors import CONTROLS

STEMS = ("labels", "metadata")  # of label files that are found in a folder
NAMES = tuple(f"{stem}{ending}" for stem in STEMS for ending in READERS)
LARGEST_FILE = 16 << 30  # bytes
FORM = "label file"


def label_files(folder: Path) -> list[str]:
    """The label files that a folder holds, by their names."""
    return [name for name in NAMES if os.path.isfile(folder / name)]


@dataclass
class ReadRows:
    """What the rows of a label file hold, in their order. `splits` has an index into `split_names`, -1 for an empty
    cell; it and `groups` are empty where the file has no such column."""

    images: list[str] = field(default_factory=list)
    lines: array[int] = field(default_factory=lambda: array("q"))
    splits: CellCodes = field(default_factory=CellCodes)
    groups: list[str | None] = field(default_factory=list)
    labels: dict[str, CellCodes] = field(default_factory=dict)


def scan_label_file(path: Path, follow_links: bool, reading: LabelReading, looking: Looking | None = None) -> Scan:
    """Read a label file and what lies beside it. What is wrong is collected in the scan; nothing is raised."""
    folder = path.parent
    scan = Scan(Path(os.path.realpath(folder)), follow_links=follow_links, form=FORM, source=path.name, looking=looking)
    if outside := scan.elsewhere(path.name):
        scan.add("path", path.name, INSIDE, outside, "data.follow_links: true, or --follow-links, follows your links")
        return scan
    described = read_sidecar(scan, folder)
    scan.packed = read_packed(scan)
    scan = replace(scan, root=image_folder(folder, described), _folders={})
    if not scan.root.is_dir():
        scan.add("missing", "labels.json.images", "the folder of the images must exist", str(described.images))
        return scan
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):  # reading a pipe would block for ever
        scan.add("unreadable", path.name, "must be a file", stat.filemode(found.st_mode))
        return scan
    if found.st_size > LARGEST_FILE or not found.st_size:
        rule = f"has from 1 to {LARGEST_FILE:,} bytes"
        scan.add("empty" if not found.st_size else "unreadable", path.name, rule, f"{found.st_size:,}")
        return scan
    table = open_table(scan, path)
    roles = roles_of(scan, table.names, reading, described) if table is not None else None
    if table is None or roles is None:
        return scan
    scan.file_column = roles.file
    rows = read_rows(scan, table, roles, reading)
    _interpret(scan, rows, roles, reading, described)
    return scan


def read_rows(scan: Scan, table: LabelTable, roles: ColumnRoles, reading: LabelReading) -> ReadRows:
    """Stream the rows of a table, looking at each image. Rows without a file become problems and are left out."""
    rows = ReadRows(labels={name: CellCodes() for name in roles.attributes})
    for block in table.blocks(tuple(dict.fromkeys(roles.wanted))):
        columns, lines = dict(block.columns), block.lines
        files = columns[roles.file]
        if files.null_count:
            for line in lines[files.is_null().to_numpy(zero_copy_only=False)][:1000]:
                scan.add("missing", f"{scan.source}:{line}, {roles.file}", "every row names an image", "an empty cell")
            there = files.is_valid()
            columns = {name: column.filter(there) for name, column in columns.items()}
            lines = lines[there.to_numpy(zero_copy_only=False)]
        _look_at_all(scan, columns[roles.file].to_pylist(), lines.tolist(), roles.file)
        rows.images += columns[roles.file].to_pylist()
        rows.lines.extend(lines.tolist())
        if roles.split:
            rows.splits.add(columns[roles.split])
        if roles.group:
            rows.groups += columns[roles.group].to_pylist()
        for name, cells in rows.labels.items():
            cells.add(columns[name] if reading.missing is None else _without_minus_one(columns[name]))
    return rows


def _without_minus_one(column: pa.Array) -> pa.Array:
    minus_one = pc.is_in(column, pa.array(["-1", "-1.0"]))
    return pc.if_else(minus_one, pa.scalar(None, pa.string()), column)


def _look_at_all(scan: Scan, images: Sequence[str], lines: Sequence[int], column: str) -> None:
    for line, image in zip(lines, images, strict=True):
        if not image.isprintable() and CONTROLS.search(image):
            scan.refused.add(image)
            place = f"{scan.source}:{line}, {column}"
            scan.add("path", place, "a file's name holds no control characters", ascii(image[:200]))
        else:
            look_at(scan, f"{scan.source}:{line}, {column}", image)


def _interpret(
    scan: Scan, rows: ReadRows, roles: ColumnRoles, reading: LabelReading, described: LabelsDescription
) -> None:
    """Fill the scan's attributes, images and labels from the rows."""
    report_links(scan)
    if not rows.images:
        if not scan.problems:
            scan.add("empty", scan.source, "must have rows below the names of its columns")
        return
    lines = np.frombuffer(rows.lines, np.int64)
    attributes: list[Attribute] = []
    matrices: list[NDArray[np.int64]] = []
    for name in roles.attributes:
        found = labels_of(scan, name, rows.labels.pop(name), lines, described.attribute(name))
        if found is not None:
            attributes.append(found[0])
            matrices.append(found[1])
    splits = _splits(scan, rows, lines) if roles.split else None
    labels = np.concatenate([np.zeros((len(lines), 0), np.int64), *matrices], axis=1)
    complete = len(attributes) == len(roles.attributes)
    scan.attributes = tuple(attributes) if complete else ()
    made_by = described.split if reading.split in (None, described.split) else None
    assign_splits(scan, rows.images, lines, labels, splits, rows.groups, reading.split, made_by)


def _splits(scan: Scan, rows: ReadRows, lines: NDArray[np.int64]) -> list[str]:
    """The split of each row; empty for a row whose cell is no split's name, which becomes a problem."""
    codes, texts = rows.splits.codes(), list(rows.splits.texts)
    known = [SPLIT_WORDS.get(text.lower().removesuffix(".0"), "") for text in texts]
    names = [*known, ""]
    words = ", ".join(word for word in SPLIT_WORDS if not word.isdigit())
    for row in np.flatnonzero(np.isin(codes, [code for code in range(-1, len(texts)) if not names[code]]))[:10_000]:
        value = repr(texts[codes[row]]) if codes[row] >= 0 else "an empty cell"
        scan.add("names", f"{scan.source}:{lines[row]}, split", f"a split is one of {words}, or 0, 1, 2", value)
    return [names[code] for code in codes]
