"""All findings about a data set in one pass, even when its structure is broken. Errors forbid training."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fashion.config.data import AS_WRITTEN, LabelReading
from fashion.data.forms.table import scan_layout
from fashion.data.images import decoded, in_threads
from fashion.data.layout import dataset_of
from fashion.data.lists import CHALLENGE, Looking, Scan
from fashion.data.pictures.findings import EXAMPLES, SAME, Finding, Severity, by_kind, diagnoses, skipped_images
from fashion.data.pictures.formats import suffixes
from fashion.data.pictures.oddities import findings_by_kind
from fashion.data.remote.pushed import MANIFEST
from fashion.errors import DataError

__all__ = ["CheckResult", "Finding", "check", "findings_by_kind", "skipped_images"]
_ALIKE = ("single", "few", "divided")  # kinds that are found in the same way here and at a run's start
_RARE = 20  # with fewer images of a class in a split its accuracy says little


@dataclass(frozen=True)
class CheckResult:
    """What `check` found. `findings` has errors first; `images` counts the images that each split lists. `diagnoses`
    maps kinds to what seems to be behind all findings of that kind."""

    findings: tuple[Finding, ...]
    images: dict[str, int]
    diagnoses: dict[str, str]

    @property
    def ok(self) -> bool:
        """Whether training may go on: no errors (warnings are allowed)."""
        return not any(finding.severity == "error" for finding in self.findings)

    def lines(self) -> list[str]:
        """A few lines a kind: its number, what seems to be behind it, and examples."""
        return by_kind(self.findings, self.diagnoses)

    def to_json(self) -> dict[str, Any]:
        findings = [vars(finding) for finding in self.findings]
        return {"ok": self.ok, "images": self.images, "findings": findings, "diagnoses": self.diagnoses}


def check(
    root: str | Path,
    progress: Callable[[int, int], None] | None = None,
    follow_links: bool = False,
    reading: LabelReading = AS_WRITTEN,
    looking: Looking | None = None,
) -> CheckResult:
    """Read the lists, decode every listed image and compare their bytes. Mistakes in the data never raise.

    `progress(done, total)` is called for each image. follow_links: images may lie behind links out of the folder.
    reading: data.attributes, data.missing and data.split. looking: is told beforehand how many files were looked for.
    """
    scan = scan_layout(root, follow_links, reading, looking)
    findings = []
    for kind, problem in scan.problems:
        # A Finding has its place in a field; the rest of the problem's text is the message.
        findings.append(Finding("error", kind, problem.place, str(problem).removeprefix(f"{problem.place}: ")))
    digests, of_images = _read_all(scan, progress)
    findings += of_images
    findings += _duplicate_lines(scan)
    findings += _identical_images(scan, digests)
    findings += _class_counts(scan)
    findings += _missing(scan)
    findings += _unlisted(scan)
    if not scan.problems:
        known = findings_by_kind(dataset_of(scan))
        findings += [Finding("info", each.kind, str(root), each.sentence) for each in known if each.kind in _ALIKE]
    if scan.packed is not None:
        message = "packed images replace the images: only the lists and labels were checked"
        findings.append(Finding("info", "packed", MANIFEST, message))
    order = {"error": 0, "warning": 1, "info": 2}
    findings.sort(key=lambda finding: order[finding.severity])
    images = {split: len(images) for split, images in scan.images.items()}
    return CheckResult(tuple(findings), images, diagnoses(scan))


def _read_all(scan: Scan, progress: Callable[[int, int], None] | None) -> tuple[dict[str, bytes], list[Finding]]:
    """The SHA-256 of every readable image's bytes, and findings about what is in the files."""
    paths = sorted(
        {
            image
            for images in scan.images.values()
            for image in images
            if image not in scan.refused and os.path.isfile(scan.root / image)
        }
    )

    def read(image: str) -> tuple[bytes, bool, bool, str]:
        try:
            picture = decoded(scan.root / image)
            with open(scan.root / image, "rb") as file:
                return hashlib.file_digest(file, "sha256").digest(), picture.turned, picture.deep, ""
        except DataError as error:
            return b"", False, False, error.problems[0].value
        except OSError as error:
            return b"", False, False, str(error)

    digests, findings, turned, deep = {}, [], [], []
    for done, (image, found) in enumerate(zip(paths, in_threads(read, paths), strict=True), start=1):
        digest, is_turned, is_deep, trouble = found
        if trouble:
            message = f"can't be decoded: {trouble} (data.on_error: skip leaves such images out)"
            findings.append(Finding("error", "unreadable", image, message))
        else:
            digests[image] = digest
        if is_turned:
            turned.append(image)
        if is_deep:
            deep.append(image)
        if progress is not None:
            progress(done, len(paths))
    if turned:
        message = f"{_images(turned)} an EXIF orientation, by which data.orientation: apply turns or mirrors them"
        findings.append(Finding("info", "rotated", turned[0], message))
    if deep:
        message = f"{_images(deep)} greys of more than 8 bits, or floats, which become bytes as data.depth says"
        findings.append(Finding("info", "deep", deep[0], message))
    return digests, findings


def _images(names: list[str]) -> str:
    more = len(names) - 1
    return f"this and {more:,} more image{'s' if more > 1 else ''} have" if more else "this image has"


def _duplicate_lines(scan: Scan) -> list[Finding]:
    findings = []
    for split, images in scan.images.items():
        first: dict[str, int] = {}
        for number, image in zip(scan.lines[split], images, strict=True):
            if image in first:
                message = f"{image} is already listed in line {first[image]}"
                findings.append(Finding("warning", "duplicate", scan.image_place(split, number), message))
            first.setdefault(image, number)
    return findings


def _identical_images(scan: Scan, digests: dict[str, bytes]) -> list[Finding]:
    """One finding for each group of byte-identical images, and another where their labels disagree."""
    listed = {(split, image) for split, images in scan.images.items() for image in images}
    times = Counter(digests[image] for _, image in listed if image in digests)
    several = {digest for digest, count in times.items() if count > 1}
    repeated = Counter(image for images in scan.images.values() for image in images)
    groups: dict[bytes, dict[tuple[str, str], set[tuple[int, ...]]]] = defaultdict(lambda: defaultdict(set))
    for split, images in scan.images.items():
        rows = list(scan.labelled(split))
        for index, image in enumerate(images):
            if image in digests and (digests[image] in several or repeated[image] > 1):
                labels = groups[digests[image]][split, image]
                row = rows[index] if index < len(rows) else None
                if row is not None:
                    labels.add(row)
    findings = []
    for members in groups.values():
        place = SAME.join(image for _, image in members)
        splits = list(dict.fromkeys(split for split, _ in members))
        labellings = sorted(set().union(*members.values()))
        if len(splits) > 1:
            findings.append(Finding("warning", "leak", place, f"the same bytes are in {' and '.join(splits)}"))
        elif len(members) > 1:
            message = f"the same bytes occur {len(members)} times in {splits[0]}"
            findings.append(Finding("warning", "identical", place, message))
        if len(labellings) > 1:
            more = f" and {len(labellings) - EXAMPLES:,} others" if len(labellings) > EXAMPLES else ""
            text = " and ".join(_in_words(scan, row) for row in labellings[:EXAMPLES]) + more
            findings.append(Finding("warning", "conflict", place, f"the same bytes have different labels: {text}"))
    return findings


def _in_words(scan: Scan, row: tuple[int, ...]) -> str:
    """The labels of an image, by the names of their classes where the labels are read from a label file."""
    if scan.form == CHALLENGE or len(row) != sum(attribute.columns for attribute in scan.attributes):
        return " ".join(map(str, row))
    told, column = [], 0
    for attribute in scan.attributes:
        mine = row[column : column + attribute.columns]
        held = [name for name, value in zip(attribute.classes, mine, strict=False) if value > 0]
        single = attribute.classes[mine[0]] if mine[0] >= 0 else "missing"
        told.append("|".join(held) or "none" if attribute.multi_label else single)
        column += attribute.columns
    return ", ".join(told)


def _missing(scan: Scan) -> list[Finding]:
    """One finding for each attribute of a split in which labels are missing, with their number."""
    if scan.problems or not scan.labels:
        return []
    findings, dataset = [], dataset_of(scan)
    for split, matrix in scan.labels.items():
        for attribute, count in zip(scan.attributes, dataset.missing_counts(split), strict=True):
            if count:
                message = f"{attribute.name} is missing for {count:,} of {len(matrix):,} images"
                findings.append(Finding("info", "unlabelled", scan.label_place(split), message))
    return findings


def _counts(scan: Scan, split: str) -> list[list[int]]:
    """How often each class of each attribute occurs in a split, as far as its lines could be read."""
    if split in scan.labels:
        return [counts.tolist() for counts in dataset_of(scan).label_counts(split)]
    counted = []
    for head, attribute in enumerate(scan.attributes):
        times = Counter(row[head] for row in scan.rows[split] if row is not None and head < len(row))
        counted.append([times[label] for label in range(len(attribute.classes))])
    return counted


def _class_counts(scan: Scan) -> list[Finding]:
    """A finding for each class that never occurs in a split or is rare there."""
    findings = []
    for split in (*scan.rows, *scan.labels):
        for attribute, counts in zip(scan.attributes, _counts(scan, split), strict=False):
            for label, name in enumerate(attribute.classes):
                place = scan.label_place(split)
                if counts[label] == 0:
                    severity: Severity = "info" if split == "test" else "warning"
                    message = f"{attribute.name} {name} ({label}) never occurs"
                    findings.append(Finding(severity, "absent", place, message))
                elif counts[label] < _RARE:
                    message = f"{attribute.name} {name} ({label}) occurs only {counts[label]} times"
                    findings.append(Finding("info", "rare", place, message))
    return findings


def _unlisted(scan: Scan) -> list[Finding]:
    """One finding that names the first image that no split lists, and counts them: in the challenge's layout below
    img/, otherwise in the folders of the images that are listed."""
    listed = {image for images in scan.images.values() for image in images if image not in scan.refused}
    if scan.form == CHALLENGE:
        folders = [place for place, _, _ in os.walk(scan.root / "img")] if listed else []
    else:
        folders = sorted({os.path.dirname(scan.root / image) for image in listed})
    found = {
        Path(place, name).relative_to(scan.root).as_posix()
        for place in folders
        if os.path.isdir(place)
        for name in os.listdir(place)
        if os.path.splitext(name)[1].lower() in suffixes() and not name.startswith(".")
    }
    extra = sorted(name for name in found - listed if not os.path.isdir(scan.root / name))
    if not extra:
        return []
    where = "img/" if scan.form == CHALLENGE else "the images' folders"
    return [Finding("info", "unlisted", extra[0], f"is in no split; so are {len(extra)} images of {where} in all")]
