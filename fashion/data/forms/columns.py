"""What each column of a label file is for, told by its name, by `data.attributes` and by `labels.json`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fashion.config.data import LabelReading
from fashion.data.forms.images import check_names
from fashion.data.forms.sidecar import LabelsDescription
from fashion.data.lists import Scan
from fashion.errors import nearest

FILE_COLUMNS = ("file_name", "image", "path", "img_path", "fname", "image_path")
SPLIT_COLUMN, GROUP_COLUMN = "split", "group"
SPLIT_WORDS = {
    **dict.fromkeys(("train", "training", "0"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "1"), "val"),
    **dict.fromkeys(("test", "testing", "eval", "2"), "test"),
}


@dataclass(frozen=True)
class ColumnRoles:
    """The names of the columns by what they are for; empty where there is none. left_out: columns without a name, such
    as the row numbers that pandas writes."""

    file: str
    split: str
    group: str
    attributes: tuple[str, ...]
    left_out: int = 0

    @property
    def wanted(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.file, self.split, self.group, *self.attributes)))


def roles_of(
    scan: Scan, names: Sequence[str], reading: LabelReading, described: LabelsDescription
) -> ColumnRoles | None:
    """The roles of the columns `names`. None, and problems in `scan`, where they can't be told."""
    place, before = f"{scan.source}:1", len(scan.problems)
    named = [name for name in names if name and not name.startswith("Unnamed: ")]
    if twice := sorted({name for name in named if named.count(name) > 1}):
        scan.add("columns", place, "the names of the columns differ from one another", ", ".join(map(repr, twice)))
    chosen = reading.attributes
    if chosen is None and described.attributes:
        chosen = tuple(each.name for each in described.attributes)
    file = [name for name in FILE_COLUMNS if name in named and name not in (chosen or ())]
    if not file:
        rule = f"a column holds the images' files: {', '.join(FILE_COLUMNS)}"
        fix = "The first line of a label file names its columns. " + _file_fix(named)
        scan.add("columns", place, rule, ", ".join(map(repr, named[:20])) or "no columns", fix.strip())
    elif len(file) > 1 and chosen is None:
        rule, fix = "one column holds the images' files", "Name the attributes: data.attributes"
        scan.add("columns", place, rule, ", ".join(file), fix)
    split = SPLIT_COLUMN if SPLIT_COLUMN in named and SPLIT_COLUMN not in (chosen or ()) else ""
    group = GROUP_COLUMN if GROUP_COLUMN in named and GROUP_COLUMN not in (chosen or ()) else ""
    made = SPLIT_COLUMN in named and described.split == reading.split  # by that rule, so that the group is not needed
    if reading.split is not None and reading.split.group is not None and not made:
        group = reading.split.group
        if group not in named:
            scan.add("columns", "data.split.group", "must be a column", group, nearest(group, named))
    other = {*file[:1], split, group}
    if chosen is None:
        attributes = tuple(name for name in named if name not in other)
        if not attributes and file:
            rule = "besides the images' files, a column holds labels"
            scan.add("columns", place, rule, ", ".join(map(repr, named)))
    else:
        attributes = chosen
        for name in chosen:
            if name not in named:
                where = "data.attributes" if reading.attributes is not None else "labels.json"
                fix = nearest(name, named, f"There are {', '.join(map(repr, named[:20]))}")
                scan.add("columns", where, f"names columns of {scan.source}", name, fix)
    fix = "Give the column another name, or leave it out: data.attributes"
    check_names(scan, place, attributes, fix)
    if len(scan.problems) > before:
        return None
    return ColumnRoles(file[0], split, group, attributes, len(names) - len(named))


def _file_fix(named: Sequence[str]) -> str:
    for name in named:
        if close := nearest(name, FILE_COLUMNS):
            return f"{name!r}: {close}"
    return ""
