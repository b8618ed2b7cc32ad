"""Every finding about a data set in one pass, also when its structure is broken. Errors forbid training."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fashion.data.images import IMAGE_SUFFIXES, load_rgb
from fashion.data.lists import Scan
from fashion.data.pushed import MANIFEST
from fashion.data.scan import scan_layout
from fashion.errors import DataError, printable

Severity = Literal["error", "warning", "info"]
_RARE = 20  # images of a class in a split below which its accuracy says little


@dataclass(frozen=True)
class Finding:
    """One finding. `kind` is one of missing, unreadable, blank, empty, path, columns, label, count, heads, names
    (errors), duplicate, identical, leak, conflict, absent (warnings), rare, unlisted and packed (for information)."""

    severity: Severity
    kind: str
    place: str
    message: str

    def __str__(self) -> str:
        return printable(f"{self.severity}: {self.place}: {self.message} [{self.kind}]")


@dataclass(frozen=True)
class CheckReport:
    """`findings` with errors first; `images` counts the images a split lists."""

    findings: tuple[Finding, ...]
    images: dict[str, int]

    @property
    def ok(self) -> bool:
        """Whether training may go on: no errors (warnings are allowed)."""
        return not any(finding.severity == "error" for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        return {"ok": self.ok, "images": self.images, "findings": [vars(finding) for finding in self.findings]}


def check(root: str | Path, progress: Callable[[int, int], None] | None = None) -> CheckReport:
    """Read the lists, decode every listed image, compare their bytes. Never raises for what is wrong with the data."""
    scan = scan_layout(root)
    findings = []
    for kind, problem in scan.problems:
        # The place of a Problem is stated once in a Finding; the rest of its text is the message.
        findings.append(Finding("error", kind, problem.place, str(problem).removeprefix(f"{problem.place}: ")))
    digests, unreadable = _read_all(scan, progress)
    findings += unreadable
    findings += _duplicate_lines(scan)
    findings += _identical_images(scan, digests)
    findings += _class_counts(scan)
    findings += _unlisted(scan)
    if scan.packed is not None:
        message = "packed images stand in the images' place: of those only their lists and labels were looked at"
        findings.append(Finding("info", "packed", MANIFEST, message))
    order = {"error": 0, "warning": 1, "info": 2}
    findings.sort(key=lambda finding: order[finding.severity])
    return CheckReport(tuple(findings), {split: len(images) for split, images in scan.images.items()})


def _read_all(scan: Scan, progress: Callable[[int, int], None] | None) -> tuple[dict[str, str], list[Finding]]:
    """The digest of every readable image's bytes, and a finding for each that can't be decoded whole."""
    paths = sorted(
        {
            image
            for images in scan.images.values()
            for image in images
            if image not in scan.refused and os.path.isfile(scan.root / image)
        }
    )

    def read(image: str) -> tuple[str, str]:
        try:
            load_rgb(scan.root / image)
            return hashlib.sha256((scan.root / image).read_bytes()).hexdigest(), ""
        except DataError as error:
            return "", error.problems[0].value
        except OSError as error:
            return "", str(error)

    digests, findings = {}, []
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        for done, (image, (digest, trouble)) in enumerate(zip(paths, pool.map(read, paths), strict=True), start=1):
            if trouble:
                findings.append(Finding("error", "unreadable", image, f"can't be decoded: {trouble}"))
            else:
                digests[image] = digest
            if progress is not None:
                progress(done, len(paths))
    finally:
        pool.shutdown(cancel_futures=True)
    return digests, findings


def _duplicate_lines(scan: Scan) -> list[Finding]:
    findings = []
    for split, images in scan.images.items():
        first: dict[str, int] = {}
        for number, image in zip(scan.lines[split], images, strict=True):
            if image in first:
                findings.append(
                    Finding(
                        "warning",
                        "duplicate",
                        f"split/{split}.txt:{number}",
                        f"{image} is listed already in line {first[image]}",
                    )
                )
            first.setdefault(image, number)
    return findings


def _identical_images(scan: Scan, digests: dict[str, str]) -> list[Finding]:
    """One finding for each group of byte-identical images, and one more where their labels disagree."""
    groups: dict[str, dict[tuple[str, str], set[tuple[int, ...]]]] = defaultdict(lambda: defaultdict(set))
    for split, images in scan.images.items():
        rows = scan.rows.get(split, [])
        for index, image in enumerate(images):
            if image in digests:
                labels = groups[digests[image]][split, image]
                row = rows[index] if index < len(rows) else None
                if row is not None:
                    labels.add(row)
    findings = []
    for members in groups.values():
        place = " = ".join(image for _, image in members)
        splits = list(dict.fromkeys(split for split, _ in members))
        labellings = sorted(set().union(*members.values()))
        if len(splits) > 1:
            findings.append(Finding("warning", "leak", place, f"the same bytes are in {' and '.join(splits)}"))
        elif len(members) > 1:
            findings.append(
                Finding("warning", "identical", place, f"the same bytes occur {len(members)} times in {splits[0]}")
            )
        if len(labellings) > 1:
            text = " and ".join(" ".join(map(str, row)) for row in labellings)
            findings.append(Finding("warning", "conflict", place, f"the same bytes are labelled differently: {text}"))
    return findings


def _class_counts(scan: Scan) -> list[Finding]:
    findings = []
    for split, rows in scan.rows.items():
        for head, attribute in enumerate(scan.attributes):
            counts = Counter(row[head] for row in rows if row is not None and head < len(row))
            for label, name in enumerate(attribute.classes):
                place = f"split/{split}_attr.txt"
                if counts[label] == 0:
                    severity: Severity = "info" if split == "test" else "warning"
                    findings.append(
                        Finding(severity, "absent", place, f"{attribute.name} {name} ({label}) never occurs")
                    )
                elif counts[label] < _RARE:
                    findings.append(
                        Finding(
                            "info",
                            "rare",
                            place,
                            f"{attribute.name} {name} ({label}) occurs {counts[label]} times only",
                        )
                    )
    return findings


def _unlisted(scan: Scan) -> list[Finding]:
    listed = {image for images in scan.images.values() for image in images}
    folder = scan.root / "img"
    if not folder.is_dir() or not listed:
        return []
    found = {p.relative_to(scan.root).as_posix() for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES}
    extra = sorted(found - listed)
    return (
        [Finding("info", "unlisted", extra[0], f"in no split, as {len(extra)} images of img/ in all")] if extra else []
    )
