"""Label files of others, which `fashion-sweep data convert` reads: CelebA's lists and mmpretrain's multi-task JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic_core import from_json

from fashion.data.convert.write import LabelRows
from fashion.data.forms.images import check_names, look_at
from fashion.data.lists import LARGEST_LIST, MISSING, SPLITS, Attribute, Line, Scan, read_lines
from fashion.errors import CONTROLS

CELEBA, PARTITION = "list_attr_celeba.txt", "list_eval_partition.txt"
IMAGE_FOLDERS = ("img_align_celeba", "img_celeba")  # beside the lists, as the archives unpack
YES_NO = ("no", "yes")


@dataclass(frozen=True)
class ForeignFormat:
    """found: the file to read, given what the user named; None where that is another format. read: its rows; what is
    wrong becomes a problem in the scan, and there are none then."""

    found: Callable[[Path], Path | None]
    read: Callable[[Scan, Path], LabelRows | None]


def _celeba(place: Path) -> Path | None:
    file = place / CELEBA if place.is_dir() else place
    return file if file.name == CELEBA and file.is_file() else None


def _read_celeba(scan: Scan, path: Path) -> LabelRows | None:
    """CelebA's attributes (Liu et al. 2015): the number of images, the attributes' names, then a line for each image
    with 1 or -1 for each attribute. Each becomes an attribute with the classes no and yes."""
    lines = _lines(scan, path)
    if len(lines) < 3:
        scan.add("empty", path.name, "has the number of images, the attributes' names, and lines of labels")
        return None
    names, rows = lines[1][1].split(), lines[2:]
    if lines[0][1] != str(len(rows)):
        scan.add("count", f"{path.name}:1", "the first line is the number of images", f"{lines[0][1]}, not {len(rows)}")
    check_names(scan, f"{path.name}:2", names, "")
    matrix = np.full((len(rows), len(names)), MISSING, np.int64)
    images = []
    for row, (number, line) in enumerate(rows):
        image, *words = line.split()
        images.append(image)
        odd = [word for word in words if word not in ("1", "-1")]
        if odd or len(words) != len(names):
            rule = f"a line has an image and {len(names)} labels, 1 or -1"
            scan.add("label", f"{path.name}:{number}", rule, repr(odd[0]) if odd else f"{len(words)} labels")
        else:
            matrix[row] = [word == "1" for word in words]
    partition = path.with_name(PARTITION)
    splits = _partition(scan, partition, images) if partition.is_file() else None
    root = next((path.parent / name for name in IMAGE_FOLDERS if (path.parent / name).is_dir()), path.parent)
    return LabelRows(root, tuple(Attribute(name, YES_NO) for name in names), images, matrix, splits)


def _partition(scan: Scan, path: Path, images: Sequence[str]) -> list[str]:
    """The split of each image: 0 train, 1 val, 2 test."""
    found: dict[str, str] = {}
    for number, line in _lines(scan, path):
        words = line.split()
        if len(words) != 2 or words[1] not in ("0", "1", "2"):
            scan.add("names", f"{path.name}:{number}", "a line has an image and 0, 1 or 2", repr(line))
        else:
            found[words[0]] = SPLITS[int(words[1])]
    if lacking := [image for image in images if image not in found]:
        scan.add("count", path.name, "names every image", f"not {lacking[0]} ({len(lacking):,} in all)")
    return [found.get(image, "train") for image in images]


def _mmpretrain(place: Path) -> Path | None:
    return place if place.suffix.lower() == ".json" and place.is_file() else None


def _read_mmpretrain(scan: Scan, path: Path) -> LabelRows | None:
    """mmpretrain's MultiTaskDataset: `{"metainfo": {"tasks": [...]}, "data_list": [{"img_path": ..., "gt_label":
    {TASK: 2 or [0, 1, 0]}}]}`; a list is a multi-label task, and a task that an image lacks is missing."""
    try:
        found: Any = from_json(path.read_bytes()) if path.stat().st_size <= LARGEST_LIST else None
    except ValueError as error:
        scan.add("unreadable", path.name, "must be JSON", str(error))
        return None
    rows = found.get("data_list") if isinstance(found, dict) else None
    tasks = found.get("metainfo", {}).get("tasks") if rows and isinstance(found.get("metainfo"), dict) else None
    if not isinstance(rows, list) or not isinstance(tasks, list | dict) or not tasks or not all(map(_is_row, rows)):
        rule = 'must be {"metainfo": {"tasks": [...]}, "data_list": [{"img_path": ..., "gt_label": {...}}, ...]}'
        scan.add("unreadable", path.name, rule)
        return None
    names = [str(name) for name in tasks]
    check_names(scan, f"{path.name}: metainfo.tasks", names, "")
    attributes, matrices = [], []
    for name in names:
        values = [row["gt_label"].get(name) for row in rows]
        told = tasks[name] if isinstance(tasks, dict) else None
        task = _task(scan, path, name, values, told)
        if task is not None:
            attributes.append(task)
            empty = [MISSING] * task.columns
            cells = [empty if value is None else value if task.multi_label else [value] for value in values]
            matrices.append(np.array(cells, np.int64))
    if scan.problems:
        return None
    images = [str(row["img_path"]) for row in rows]
    return LabelRows(path.parent, tuple(attributes), images, np.concatenate(matrices, axis=1))


def _is_row(row: Any) -> bool:
    return isinstance(row, dict) and isinstance(row.get("img_path"), str) and isinstance(row.get("gt_label"), dict)


def _task(scan: Scan, path: Path, name: str, values: Sequence[Any], told: Any) -> Attribute | None:
    """The attribute of a task; None, and a problem, where its labels are no classes. told: its classes, if known."""
    there = [(number, value) for number, value in enumerate(values) if value is not None]
    several = bool(there) and isinstance(there[0][1], list)
    width = len(there[0][1]) if several else 0
    for number, value in there:
        cells = value if several and isinstance(value, list) else [value]
        whole = all(isinstance(each, int) and not isinstance(each, bool) and 0 <= each < 10_000 for each in cells)
        if not whole or (several and (len(cells) != width or max(cells, default=0) > 1)):
            rule = f"labels are {width} zeros and ones" if several else "a label is the index of a class"
            scan.add("label", f"{path.name}: data_list[{number}].gt_label.{name}", rule, str(value)[:60])
            return None
    if not there:
        scan.add("label", f"{path.name}: {name}", "a task has a label somewhere")
        return None
    most = width if several else 1 + max(value for _, value in there)
    classes = [str(each) for each in told] if isinstance(told, list) else [str(number) for number in range(most)]
    if len(classes) < most or len(set(classes)) < len(classes):
        scan.add("label", f"{path.name}: {name}", f"a task has {most} classes with different names", str(told)[:60])
        return None
    return Attribute(name, tuple(classes), several)


def _lines(scan: Scan, path: Path) -> list[Line]:
    try:
        return [line for line in read_lines(path) if line[1]]
    except ValueError as error:
        scan.add("unreadable", path.name, "must be UTF-8 text", str(error))
        return []


def read_foreign(scan: Scan, place: Path) -> LabelRows | None:
    """The rows of a file in one of FOREIGN, its images looked at; None where it is in none of them, or has problems."""
    for layout in FOREIGN.values():
        file = layout.found(place)
        if file is None:
            continue
        rows = layout.read(scan, file)
        if rows is None or scan.problems:
            return None
        scan.root = rows.root.resolve()
        for number, image in enumerate(rows.images):
            if CONTROLS.search(image):
                scan.add("path", f"{file.name}, image {number}", "a name holds no control characters", ascii(image))
            else:
                look_at(scan, f"{file.name}, image {number}", image)
        return rows
    return None


FOREIGN: Mapping[str, ForeignFormat] = {
    "CelebA": ForeignFormat(_celeba, _read_celeba),
    "mmpretrain": ForeignFormat(_mmpretrain, _read_mmpretrain),
}
