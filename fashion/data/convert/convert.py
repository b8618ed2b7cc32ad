"""The labels of a data set written in another form: `fashion-sweep data convert`. No image is copied."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from fashion.config.data import LabelReading, SplitRule
from fashion.data.convert.foreign import read_foreign
from fashion.data.convert.write import WRITERS, LabelRows, rows_of, write_challenge, write_labels
from fashion.data.forms.images import report_links
from fashion.data.forms.table import form_of
from fashion.data.layout import read_dataset
from fashion.data.lists import Looking, Scan
from fashion.errors import DataError, Problem, UserError


@dataclass(frozen=True)
class Converted:
    """What was written. rule: how splits were made that the data do not have."""

    files: tuple[Path, ...]
    images: int
    attributes: int
    rule: SplitRule | None


def convert(
    source: str | Path, target: str | Path, follow_links: bool, reading: LabelReading, looking: Looking | None = None
) -> Converted:
    """Write the labels of `source` as the label file `target`, or into the folder `target` in the challenge's layout.

    Beside a label file, `labels.json` names the folder of the images, and the classes in their order.
    looking: is told how many images are found to be there.

    Raises DataError where the source can't be used, UserError where the target can't be written or hold the labels.
    """
    target = Path(target)
    rows = _read(Path(source), follow_links, reading, looking)
    if target.suffix.lower() in WRITERS:
        here, there = os.path.realpath(target.parent), os.path.realpath(rows.root)
        files = write_labels(rows, target, None if here == there else os.path.relpath(there, here))
    elif target.suffix and not target.is_dir():
        raise UserError(Problem(str(target), f"ends in {', '.join(WRITERS)}, or is the images' folder", target.suffix))
    else:
        files = write_challenge(rows, target)
    return Converted(tuple(files), len(rows.images), len(rows.attributes), rows.rule)


def _read(source: Path, follow_links: bool, reading: LabelReading, looking: Looking | None) -> LabelRows:
    if form_of(source) is None:
        root = Path(os.path.realpath(source if source.is_dir() else source.parent))
        scan = Scan(root, follow_links=follow_links, looking=looking)
        rows = read_foreign(scan, source)
        report_links(scan)
        if scan.problems:
            raise DataError(f"{source} can't be converted:", [problem for _, problem in scan.problems[:20]])
        if rows is not None:
            return rows
    return rows_of(read_dataset(source, follow_links, reading=reading, looking=looking))
