"""A data set written as a label file with its `labels.json`, or in the challenge's layout. No image is copied."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fashion.config.data import SplitRule
from fashion.data.forms.cells import NONE_OF_THEM
from fashion.data.forms.columns import FILE_COLUMNS, SPLIT_COLUMN
from fashion.data.forms.delimited import as_csv
from fashion.data.forms.sidecar import SIDECAR, DescribedAttribute, LabelsDescription
from fashion.data.layout import Dataset
from fashion.data.lists import LABELLED, MISSING, SPLITS, Attribute
from fashion.errors import Problem, UserError
from fashion.files import write_atomic

FILE_COLUMN = FILE_COLUMNS[0]
Cell = str | list[str] | None  # of a single-label attribute, a multi-label one, or missing


@dataclass(frozen=True)
class LabelRows:
    """What a label file says. images: N names below `root`. labels: (N, columns), as `Attribute` has them. splits: N,
    or None where the data have none; `rule` is how they were made, where a rule made them."""

    root: Path
    attributes: tuple[Attribute, ...]
    images: Sequence[str]
    labels: NDArray[np.int64]
    splits: Sequence[str] | None = None
    rule: SplitRule | None = None


def rows_of(dataset: Dataset) -> LabelRows:
    """The rows of a data set, split by split."""
    width = sum(attribute.columns for attribute in dataset.attributes)
    names = [name for name in SPLITS if name in dataset.splits]
    splits = [dataset.splits[name] for name in names]
    labels = [np.full((len(s), width), MISSING, np.int64) if s.labels is None else s.labels for s in splits]
    images = [image for split in splits for image in split.images]
    told = [name for name, split in zip(names, splits, strict=True) for _ in split.images]
    return LabelRows(dataset.root, dataset.attributes, images, np.concatenate(labels), told, dataset.rule)


def write_labels(rows: LabelRows, path: Path, images: str | None = None) -> list[Path]:
    """Write the label file `path`, in the format of its ending, and `labels.json` beside it. Returns both.

    images: the folder of the images, as `labels.json` names it; None where it is the label file's own.

    Raises UserError where an attribute's or a class's name has no place in such a file, or one of the files exists.
    """
    if path.suffix.lower() not in WRITERS:
        raise UserError(Problem(str(path), f"a label file ends in {', '.join(WRITERS)}"))
    _require_names(rows)
    described = LabelsDescription(
        images=images,
        attributes=[
            DescribedAttribute(name=a.name, classes=list(a.classes), multi_label=a.multi_label) for a in rows.attributes
        ],
        split=rows.rule,
    )
    sidecar = path.with_name(SIDECAR)
    _require_new([path, sidecar])
    content = WRITERS[path.suffix.lower()](_columns(rows))
    text = described.model_dump_json(indent=1, exclude_defaults=True) + "\n"
    _write({path: content, sidecar: text.encode()})
    return [path, sidecar]


def write_challenge(rows: LabelRows, folder: Path) -> list[Path]:
    """Write `split/` of the challenge's layout into the folder of the images. Returns the files.

    Raises UserError where this layout can't hold the data: without splits, with missing or multi-label labels, or with
    images in another folder; and where `split/` exists.
    """
    place = str(folder)
    if Path(os.path.realpath(folder)) != Path(os.path.realpath(rows.root)):
        fix = f"Name that folder, or write a label file: {folder / 'labels.csv'}"
        raise UserError(Problem(place, "the challenge's layout lies in the images' own folder", str(rows.root), fix))
    if rows.splits is None or not set(LABELLED) <= set(rows.splits):
        raise UserError(Problem(place, "the challenge's layout has splits", "data without them", "Write a label file"))
    if odd := [a.name for a in rows.attributes if a.multi_label]:
        raise UserError(Problem(place, "the challenge's layout has single-label attributes", ", ".join(odd)))
    if (folder / "split").exists():
        raise UserError(Problem(str(folder / "split"), "must not exist yet", fix="Move it away"))
    splits, files = np.array(rows.splits), {}
    for split in SPLITS:
        mine = np.flatnonzero(splits == split)
        labels = rows.labels[mine]
        if not len(mine):
            continue
        files[f"{split}.txt"] = [rows.images[int(row)] for row in mine]
        if split in LABELLED or (labels != MISSING).any():
            if (labels == MISSING).any():
                raise UserError(Problem(place, "the challenge's layout has no missing labels", split))
            files[f"{split}_attr.txt"] = [" ".join(map(str, row)) for row in labels.tolist()]
    classes = [f"{name} {group}" for group, a in enumerate(rows.attributes, start=1) for name in a.classes]
    files["list_attr_cloth.txt"] = [str(len(classes)), "attribute_name attribute_type", *classes]
    files["attribute_names.txt"] = [a.name for a in rows.attributes]
    written = {folder / "split" / name: "".join(f"{line}\n" for line in lines) for name, lines in files.items()}
    _write({path: text.encode() for path, text in written.items()})
    return list(written)


def _require_names(rows: LabelRows) -> None:
    for attribute in rows.attributes:
        if attribute.name in (FILE_COLUMN, SPLIT_COLUMN):
            rule = "is the name of another column of a label file"
            raise UserError(Problem(f"attribute {attribute.name}", rule, fix="Give the attribute another name first"))
        if attribute.multi_label and (odd := [name for name in attribute.classes if "|" in name]):
            rule = "a class of a multi-label attribute has no | in its name"
            raise UserError(Problem(f"attribute {attribute.name}", rule, repr(odd[0])))


def _require_new(paths: Sequence[Path]) -> None:
    for path in paths:
        if os.path.lexists(path):
            raise UserError(Problem(str(path), "must not exist yet", fix="Move it away, or write into another folder"))


def _write(files: Mapping[Path, bytes]) -> None:
    for path, content in files.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, content)
        except OSError as error:
            raise UserError(Problem(str(path), "must be a file that can be written", str(error.strerror))) from error


def _columns(rows: LabelRows) -> dict[str, list[Cell]]:
    columns: dict[str, list[Cell]] = {FILE_COLUMN: list(rows.images)}
    if rows.splits is not None:
        columns[SPLIT_COLUMN] = list(rows.splits)
    column = 0
    for attribute in rows.attributes:
        mine = rows.labels[:, column : column + attribute.columns]
        column += attribute.columns
        classes = attribute.classes
        if attribute.multi_label:
            missing = (mine == MISSING).any(axis=1)
            columns[attribute.name] = [
                None if lost else [name for name, held in zip(classes, row, strict=True) if held]
                for lost, row in zip(missing, mine.tolist(), strict=True)
            ]
        else:
            columns[attribute.name] = [classes[label] if label >= 0 else None for label in mine[:, 0].tolist()]
    return columns


def _as_cell(cell: Cell) -> str:
    if isinstance(cell, list):
        return "|".join(cell) or NONE_OF_THEM
    return cell or ""


def _csv(columns: Mapping[str, list[Cell]], delimiter: str) -> bytes:
    rows = zip(*columns.values(), strict=True)
    return as_csv([list(columns), *([_as_cell(cell) for cell in row] for row in rows)], delimiter).encode()


def _jsonl(columns: Mapping[str, list[Cell]]) -> bytes:
    lines = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()


def _parquet(columns: Mapping[str, list[Cell]]) -> bytes:
    content = io.BytesIO()
    arrays = {
        name: pa.array(cells, pa.list_(pa.string()) if any(isinstance(each, list) for each in cells) else pa.string())
        for name, cells in columns.items()
    }
    pq.write_table(pa.table(arrays), content, compression="zstd")
    return content.getvalue()


WRITERS: Mapping[str, Callable[[Mapping[str, list[Cell]]], bytes]] = {
    ".csv": lambda columns: _csv(columns, ","),
    ".tsv": lambda columns: _csv(columns, "\t"),
    ".jsonl": _jsonl,
    ".parquet": _parquet,
}
