"""What is wrong with the outside of a submission, and with its bytes: the zip, its members, line ends, separators.

The challenge's server unpacks the archive, opens `prediction.txt` and reads a line per image: what it trips over makes
an upload fail, and what it reads as something else costs score. Everything is found at once, with how to mend it.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fashion.errors import Problem
from fashion.prediction.submission import ARCHIVE_NAME, TEXT_NAME

Weight = Literal["error", "warning", "info"]
LARGEST = 1 << 30  # bytes to which the member may unpack, so that an archive bomb can't fill the memory
# What systems add to an archive on their own.
ADDED = ("__MACOSX/", ".DS_Store", "Thumbs.db", "desktop.ini", "._")
MARKS = {b"\xef\xbb\xbf": "UTF-8 with a byte order mark", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
REWRITE = "Write it again: fashion-sweep best --predict"
NUMBER = re.compile(rb"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?")


@dataclass(frozen=True)
class SubmissionFinding:
    """An error makes an upload fail, a warning may cost score, an info says what was compared."""

    weight: Weight
    problem: Problem

    def __str__(self) -> str:
        return f"{self.weight}: {self.problem}"


def error(place: str, rule: str, value: str = "", fix: str = "") -> SubmissionFinding:
    return SubmissionFinding("error", Problem(place, rule, value, fix))


def warning(place: str, rule: str, value: str = "", fix: str = "") -> SubmissionFinding:
    return SubmissionFinding("warning", Problem(place, rule, value, fix))


def info(place: str, rule: str, value: str = "", fix: str = "") -> SubmissionFinding:
    return SubmissionFinding("info", Problem(place, rule, value, fix))


def read_text(path: Path) -> tuple[bytes | None, list[SubmissionFinding]]:
    """The bytes of `prediction.txt` in the archive, or of the text file itself; None where they can't be had."""
    if not path.is_file():
        rule = "the file must exist" if not path.exists() else "must be a file"
        return None, [error(str(path), rule, "" if not path.exists() else "a folder", REWRITE)]
    if zipfile.is_zipfile(path):
        return _from_archive(path)
    if path.suffix.lower() == ".zip":
        return None, [error(path.name, "must be a zip archive", "something else, or a part of one", REWRITE)]
    if path.stat().st_size > LARGEST:
        return None, [error(path.name, "must be at most 1 GiB", f"{path.stat().st_size:,} bytes")]
    fix = f"Upload the archive: {ARCHIVE_NAME} beside it, or zip -j {ARCHIVE_NAME} {path.name}"
    found = [warning(path.name, "is the text, which the server does not take by itself", fix=fix)]
    if path.name != TEXT_NAME:
        found.append(warning(path.name, f"must be called {TEXT_NAME} in the archive", fix=f"Rename it to {TEXT_NAME}"))
    return path.read_bytes(), found


def _from_archive(path: Path) -> tuple[bytes | None, list[SubmissionFinding]]:
    found = []
    if path.name != ARCHIVE_NAME:
        fix = f"Rename it to {ARCHIVE_NAME}"
        found.append(warning(path.name, f"the challenge's archives are called {ARCHIVE_NAME}", fix=fix))
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            names = [each.filename for each in members]
            found += _member_findings(path.name, names)
            if names.count(TEXT_NAME) != 1:
                return _only_text(archive, members), found
            member = archive.getinfo(TEXT_NAME)
            if member.flag_bits & 1:
                return None, [*found, error(path.name, "must not be encrypted", fix=REWRITE)]
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                rule = "should be compressed with deflate, which every server can unpack"
                found.append(warning(path.name, rule, f"method {member.compress_type}", REWRITE))
            if member.file_size > LARGEST:
                return None, [*found, error(path.name, f"{TEXT_NAME} must be at most 1 GiB", f"{member.file_size:,}")]
            return archive.read(TEXT_NAME), found
    except Exception as damage:
        # The archive's header names the decompressor, and each has exceptions of its own for damaged bytes.
        return None, [*found, error(path.name, "must be a whole zip archive", str(damage), REWRITE)]


def _member_findings(place: str, names: Sequence[str]) -> list[SubmissionFinding]:
    """What the archive holds besides, or instead of, `prediction.txt` at its root."""
    found = []
    stray = [name for name in names if name != TEXT_NAME]
    added = [name for name in stray if any(name.startswith(a) or a in name.rpartition("/")[2] for a in ADDED)]
    others = [name for name in stray if name not in added]
    if TEXT_NAME not in names:
        near = [name for name in others if name.replace("\\", "/").rpartition("/")[2] == TEXT_NAME]
        fix = (
            "Zip the file itself, not its folder: zip -j" if near else f"Rename the file to {TEXT_NAME} and zip it: zip"
        )
        rule = f"must hold {TEXT_NAME} at its root"
        shown = ", ".join(others[:5]) or "an empty archive"
        found.append(error(place, rule, shown, f"{fix} {ARCHIVE_NAME} {near[0] if near else TEXT_NAME}"))
    elif names.count(TEXT_NAME) > 1:
        found.append(error(place, f"must hold {TEXT_NAME} once", f"{names.count(TEXT_NAME)} of them", REWRITE))
    elif others:
        rule = f"must hold {TEXT_NAME} alone"
        fix = f"Take them out: zip -d {ARCHIVE_NAME} NAME"
        found.append(error(place, rule, f"besides {', '.join(others[:5])}", fix))
    if added:
        fix = f"zip -d {place} {' '.join(repr(name) for name in added[:3])}"
        found.append(error(place, "must hold no files that a system has added", ", ".join(added[:5]), fix))
    return found


def _only_text(archive: zipfile.ZipFile, members: Sequence[zipfile.ZipInfo]) -> bytes | None:
    """The one text file in an archive whose root is wrong, so that its content is examined, too."""
    texts = [
        each for each in members
        if each.filename.lower().endswith(".txt") and not each.filename.startswith(ADDED) and each.file_size <= LARGEST
    ]  # fmt: skip
    return archive.read(texts[0]) if len(texts) == 1 and not texts[0].flag_bits & 1 else None


def read_classes(
    content: bytes, class_counts: Sequence[int], rows: int, other_splits: dict[str, int]
) -> tuple[NDArray[np.int64] | None, list[SubmissionFinding]]:
    """The class indices (rows, heads) that the text states; None where it has no index in every place.

    rows: the images of the split that is to be predicted. other_splits: those of the others, for the remedy.
    """
    for mark, encoding in MARKS.items():
        if content.startswith(mark):
            fix = "Save it as plain ASCII, without a mark"
            return None, [error(TEXT_NAME, "must be plain ASCII", encoding, fix)]
    if not content.strip():
        return None, [error(TEXT_NAME, "must have one line per image", "no lines", REWRITE)]
    found = _line_ends(content)
    lines = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n").removesuffix(b"\n").split(b"\n")
    found += _layout(lines)
    fields = [re.split(rb"[,;\s]+", line.strip()) if line.strip() else [] for line in lines]
    fields, header = _without_header(fields, len(class_counts))
    found += header
    found += _row_count(len(fields), rows, other_splits)
    classes, wrong = _indices(fields, class_counts, bool(header))
    return classes, found + wrong


def _line_ends(content: bytes) -> list[SubmissionFinding]:
    found = []
    if b"\r" in content:
        kind = "Windows' (CR LF)" if b"\r\n" in content else "CR alone"
        fix = f"sed -i 's/\\r$//' {TEXT_NAME}" if b"\r\n" in content else f"tr '\\r' '\\n' < OLD > {TEXT_NAME}"
        found.append(error(TEXT_NAME, "lines must end with LF alone", kind, fix))
    if not content.endswith((b"\n", b"\r")):
        fix = f"echo >> {TEXT_NAME}"
        found.append(warning(TEXT_NAME, "the last line should end with LF, too", "no line end", fix))
    return found


def _layout(lines: Sequence[bytes]) -> list[SubmissionFinding]:
    """Separators and blanks, each kind once, at the first line that has it."""
    kinds = (
        (re.compile(rb"[,;]"), "error", "columns must be separated by one space", "a comma or semicolon"),
        (re.compile(rb"\t"), "error", "columns must be separated by one space", "a tab"),
        (re.compile(rb"\S  +\S"), "warning", "columns should be separated by one space", "several spaces"),
        (re.compile(rb"^ | $"), "warning", "lines should neither begin nor end with a space", "one that does"),
        (re.compile(rb"^\s*$"), "error", "there must be no blank line", "one"),
        (re.compile(rb"[^\x00-\x7f]"), "error", "must be plain ASCII", "other characters"),
    )
    found = []
    for pattern, weight, rule, value in kinds:
        where = [number for number, line in enumerate(lines, start=1) if pattern.search(line)]
        if where:
            make = error if weight == "error" else warning
            found.append(make(f"{TEXT_NAME}:{where[0]}", rule, f"{value}{_and_more(len(where))}", REWRITE))
    return found


def _without_header(fields: list[list[bytes]], heads: int) -> tuple[list[list[bytes]], list[SubmissionFinding]]:
    """The rows without a line of headings and without a column of image names, and a finding for each."""
    found = []
    headings = len(fields) > 1 and fields[0] and not any(NUMBER.fullmatch(word) for word in fields[0])
    if headings and all(NUMBER.fullmatch(word) for word in fields[1]):
        shown = ascii(b" ".join(fields[0])[:40].decode("latin-1"))
        found.append(error(f"{TEXT_NAME}:1", "there must be no line of headings", shown, "Remove the first line"))
        fields = fields[1:]
    if fields and all(len(row) == heads + 1 and not NUMBER.fullmatch(row[0]) for row in fields):
        shown = ascii(fields[0][0][:40].decode("latin-1"))
        fix = f"cut -d' ' -f2- OLD > {TEXT_NAME}"
        found.append(error(f"{TEXT_NAME}:1", "must have no column of image names", shown, fix))
        fields = [row[1:] for row in fields]
    return fields, found


def _row_count(lines: int, rows: int, other_splits: dict[str, int]) -> list[SubmissionFinding]:
    if lines == rows:
        return []
    like = [name for name, images in other_splits.items() if images == lines]
    fix = f"These are as many as {like[0]} has: predict the split that is asked for" if like else REWRITE
    return [error(TEXT_NAME, f"must have one line per image: {rows:,}", f"{lines:,}", fix)]


def _indices(
    fields: Sequence[Sequence[bytes]], class_counts: Sequence[int], shifted: bool
) -> tuple[NDArray[np.int64] | None, list[SubmissionFinding]]:
    """The indices, and what keeps them from being some: another number of columns, no whole numbers, out of range."""
    heads, first = len(class_counts), 2 if shifted else 1
    found = []
    uneven = [number for number, row in enumerate(fields, first) if row and len(row) != heads]
    if uneven:
        got = f"{len(fields[uneven[0] - first])}{_and_more(len(uneven))}"
        found.append(error(f"{TEXT_NAME}:{uneven[0]}", f"must have {heads} columns, one per attribute", got, REWRITE))
    odd = [number for number, row in enumerate(fields, first) if not all(word.isdigit() for word in row)]
    if odd:
        row = fields[odd[0] - first]
        decimal = all(NUMBER.fullmatch(word) for word in row)
        shown = f"{b' '.join(row)[:40].decode('latin-1')!a}{_and_more(len(odd))}"
        fix = "Write 2, not 2.0 or a probability" if decimal else REWRITE
        found.append(error(f"{TEXT_NAME}:{odd[0]}", "must be whole numbers: class indices", shown, fix))
    padded = [n for n, row in enumerate(fields, first) if any(len(w) > 1 and w.startswith(b"0") for w in row)]
    if padded:
        rule = "indices should be written without leading zeros"
        found.append(warning(f"{TEXT_NAME}:{padded[0]}", rule, f"one{_and_more(len(padded))}", REWRITE))
    if uneven or odd or not all(fields):
        return None, found
    classes = np.array([[int(word[:18]) for word in row] for row in fields], dtype=np.int64)
    return classes, found + _ranges(classes, class_counts, first)


def _ranges(classes: NDArray[np.int64], class_counts: Sequence[int], first: int) -> list[SubmissionFinding]:
    counts = np.asarray(class_counts)
    if classes.min() >= 1 and (classes.max(axis=0) == counts).any() and (classes.max(axis=0) <= counts).all():
        rule = "indices must be counted from 0"
        return [error(TEXT_NAME, rule, "no 0, and as many as there are classes", "Subtract 1 from every index")]
    found = []
    for head in range(len(class_counts)):
        beyond = np.flatnonzero(classes[:, head] >= counts[head])
        if len(beyond):
            place = f"{TEXT_NAME}:{beyond[0] + first}, column {head + 1}"
            shown = f"{classes[beyond[0], head]}{_and_more(len(beyond))}"
            fix = "The columns must be in the order of the data set's attributes"
            found.append(error(place, f"must be 0 to {counts[head] - 1}", shown, fix))
    return found


def _and_more(lines: int) -> str:
    return f", and on {lines - 1:,} more lines" if lines > 1 else ""
