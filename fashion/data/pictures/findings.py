"""Findings about a data set: told kind by kind, with what seems to be behind them; and those that cost no decoding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from fashion.data.layout import Dataset
from fashion.data.lists import Scan
from fashion.errors import printable

Severity = Literal["error", "warning", "info"]
EXAMPLES = 3  # of a kind
SAME = " = "  # between images that are the same
# What each kind of finding is about, in the plural.
KINDS = {
    "missing": "files that are missing",
    "unreadable": "files that can't be read or decoded",
    "blank": "blank lines",
    "empty": "files that list nothing",
    "path": "paths that lead out of the data set's folder",
    "link": "links that lead out of the data set's folder",
    "columns": "lines with another number of labels than the first",
    "label": "labels that are not allowed",
    "count": "lists whose labels are fewer or more than their images",
    "heads": "files with another number of attributes",
    "names": "names that are not allowed",
    "duplicate": "images that are listed more than once",
    "identical": "groups of images with the same bytes",
    "leak": "groups of images with the same bytes in more than one split",
    "conflict": "groups of images with the same bytes and different labels",
    "absent": "classes that never occur in a split",
    "unlabelled": "attributes with missing labels",
    "rare": "classes that hardly occur in a split",
    "unlisted": "images in no split",
    "packed": "packed images",
    "rotated": "images with an EXIF orientation",
    "deep": "images of more than 8 bits",
    "single": "attributes with one class",
    "divided": "data sets without splits",
    "few": "validation splits that are small",
    "skipped": "images that are left out",
}
# Points of accuracy: a standard error of this size hides what trials differ by.
LARGE_ERROR = 5.0


@dataclass(frozen=True)
class Finding:
    """Something to know about a data set. `kind` is one of KINDS."""

    severity: Severity
    kind: str
    place: str
    message: str

    def __str__(self) -> str:
        return printable(f"{self.severity}: {self.place}: {self.message} [{self.kind}]")


@dataclass(frozen=True)
class KindOfFinding:
    """All findings of one kind, `count` of them, in one sentence."""

    kind: str
    count: int
    sentence: str


def by_kind(findings: Sequence[Finding], behind: Mapping[str, str]) -> list[str]:
    """Lines for a terminal: every finding of a kind with few of them; else their number and EXAMPLES. behind: kind ->
    what seems to be the cause."""
    kinds: dict[tuple[Severity, str], list[Finding]] = {}
    for finding in findings:
        kinds.setdefault((finding.severity, finding.kind), []).append(finding)
    lines = []
    for (severity, kind), members in kinds.items():
        if len(members) > EXAMPLES:
            lines.append(f"{severity}: {len(members):,} {KINDS[kind]} [{kind}] (--all shows each)")
        indent = "  " if len(members) > EXAMPLES else ""
        for finding in members[:EXAMPLES]:
            shown = str(replace(finding, place=_some(finding.place)))
            if indent:
                shown = shown.removeprefix(f"{severity}: ").removesuffix(f" [{kind}]")
            lines.append(indent + shown)
        if kind in behind:
            lines.append(f"  {behind[kind]}")
    return lines


def _some(place: str) -> str:
    """A place that may be a group of images, of which the first are named: a group may be the whole data set."""
    names = place.split(SAME)
    return SAME.join([*names[:EXAMPLES], f"... ({len(names):,} images)"]) if len(names) > EXAMPLES + 1 else place


def diagnoses(scan: Scan) -> dict[str, str]:
    """Kind -> what seems to be behind all its findings, where that can be told."""
    found = {}
    words = [problem.value for kind, problem in scan.problems if kind in ("label", "columns")]
    for separator, name in ((",", "commas"), (";", "semicolons")):
        if any(f"{separator}" in word.strip("'").replace("', '", "") for word in words):
            found["label"] = f"The values look separated by {name}: labels are separated by blanks."
    columns = list(zip(*[row for row in scan.rows.get("train", []) if row is not None], strict=False))
    if columns and all(min(column) >= 1 for column in columns):
        text = "No label is 0: the labels look 1-based. They are counted from 0, so subtract 1 from each."
        found.setdefault("label", text)
        found["absent"] = text
    if any(min(row, default=0) == -1 for rows in scan.rows.values() for row in rows if row is not None):
        found["label"] = (
            "-1 looks like a missing label. The challenge's layout has none: write a label file in which the cell is "
            "empty, give these images a class of their own, or leave their lines out of both files."
        )
    return found


def skipped_images(dataset: Dataset) -> str:
    """What `data.on_error: skip` left out, in one sentence."""
    counts = ", ".join(f"{split} {count:,}" for split, count in dataset.skipped_counts().items())
    first, why = next(iter(dataset.skipped.items()))
    number = _number(len(dataset.skipped), "image that can't be decoded is", "images that can't be decoded are")
    return printable(f"{number} left out ({counts}), for example {first}: {why}")


def _number(count: int, one: str, several: str) -> str:
    return f"{count:,} {one if count == 1 else several}"
