"""All findings about a data set in one pass, even when its structure is broken. Errors forbid training."""

from __future__ import annotations

import hashlib
import math
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fashion.data.images import IMAGE_SUFFIXES, load_rgb
from fashion.data.layout import Dataset, majority_baseline
from fashion.data.lists import Scan
from fashion.data.pushed import MANIFEST
from fashion.data.scan import scan_layout
from fashion.errors import DataError, printable

Severity = Literal["error", "warning", "info"]
EXAMPLES = 3  # names that a sentence lists
ENOUGH = 100  # validation images from which an accuracy's standard error is at most 5 points
GLIMPSED = 4096  # bytes
_RARE = 20  # with fewer images of a class in a split its accuracy says little


@dataclass(frozen=True)
class Finding:
    """Something to know about a data set.

    `kind` is one of missing, unreadable, blank, empty, path, columns, label, count, heads, names (errors), duplicate,
    identical, leak, conflict, absent (warnings; absent is for information in test), rare, unlisted and packed (for
    information).
    """

    severity: Severity
    kind: str
    place: str
    message: str

    def __str__(self) -> str:
        return printable(f"{self.severity}: {self.place}: {self.message} [{self.kind}]")


@dataclass(frozen=True)
class CheckResult:
    """What `check` found. `findings` has errors first; `images` counts the images that each split lists."""

    findings: tuple[Finding, ...]
    images: dict[str, int]

    @property
    def ok(self) -> bool:
        """Whether training may go on: no errors (warnings are allowed)."""
        return not any(finding.severity == "error" for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        return {"ok": self.ok, "images": self.images, "findings": [vars(finding) for finding in self.findings]}


def check(root: str | Path, progress: Callable[[int, int], None] | None = None) -> CheckResult:
    """Read the lists, decode every listed image and compare their bytes. Mistakes in the data never raise.

    `progress(done, total)` is called for each image.
    """
    scan = scan_layout(root)
    findings = []
    for kind, problem in scan.problems:
        # A Finding has its place in a field; the rest of the problem's text is the message.
        findings.append(Finding("error", kind, problem.place, str(problem).removeprefix(f"{problem.place}: ")))
    digests, unreadable = _read_all(scan, progress)
    findings += unreadable
    findings += _duplicate_lines(scan)
    findings += _identical_images(scan, digests)
    findings += _class_counts(scan)
    findings += _unlisted(scan)
    if scan.packed is not None:
        message = "packed images replace the images: only the lists and labels were checked"
        findings.append(Finding("info", "packed", MANIFEST, message))
    order = {"error": 0, "warning": 1, "info": 2}
    findings.sort(key=lambda finding: order[finding.severity])
    return CheckResult(tuple(findings), {split: len(images) for split, images in scan.images.items()})


@dataclass(frozen=True)
class KindOfFinding:
    """All findings of one kind about a data set that can be trained on. count: how many there are. sentence: what a
    user should know of them, without a full stop."""

    kind: str
    count: int
    sentence: str


def findings_by_kind(dataset: Dataset) -> list[KindOfFinding]:
    """What is odd about a data set, as far as it can be found without decoding an image: images of other splits that
    are in train, images listed twice, classes that never occur, attributes of one class, and too few validation images.
    """
    found = [_leaks(dataset), _listed_twice(dataset), *_never(dataset), _of_one_class(dataset), _few(dataset)]
    return [each for each in found if each is not None]


def _leaks(dataset: Dataset) -> KindOfFinding | None:
    train = dataset.splits["train"].images
    told, total = [], 0
    for name in ("val", "test"):
        split = dataset.splits.get(name)
        if split is not None and (count := len(_shared(dataset, train, split.images))):
            told.append(f"{count:,} of the {len(split):,} {name} images")
            total += count
    if not told:
        return None
    sentence = f"{' and '.join(told)} are in train as well, so that accuracies there are too good"
    return KindOfFinding("leak", total, sentence)


def _shared(dataset: Dataset, train: Sequence[str], images: Sequence[str]) -> set[str]:
    """Those of the images that are listed in train or have the bytes of one of its images."""
    listed = set(train)
    shared = {image for image in images if image in listed}
    if dataset.packed is not None:
        return shared  # the images themselves need not be there
    root = dataset.root
    sizes = {image: os.path.getsize(root / image) for image in {*listed, *images} - shared}
    common = {sizes[image] for image in images if image in sizes} & {sizes[each] for each in listed if each in sizes}
    digests: dict[str, str] = {}
    for image, size in sizes.items():
        if size in common:
            digests[image] = _glimpse(root / image, size)
    twins = {digests[image] for image in listed if image in digests}
    alike = [image for image in images if digests.get(image) in twins]
    # What is alike in the middle is compared whole.
    wanted = {digests[image] for image in alike}
    whole = {_digest(root / each) for each in listed if digests.get(each) in wanted}
    return shared | {image for image in alike if _digest(root / image) in whole}


def _glimpse(path: Path, size: int) -> str:
    """A digest of the size and of a few bytes from the middle, where pictures of one size differ."""
    with open(path, "rb") as file:
        file.seek(max(size // 2 - GLIMPSED // 2, 0))
        return f"{size} {hashlib.sha256(file.read(GLIMPSED)).hexdigest()}"


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _listed_twice(dataset: Dataset) -> KindOfFinding | None:
    again = {name: len(split) - len(set(split.images)) for name, split in dataset.splits.items()}
    told = ", ".join(f"{name} {count:,}" for name, count in again.items() if count)
    return (
        KindOfFinding("duplicate", sum(again.values()), f"images are listed more than once: {told}") if told else None
    )


def _never(dataset: Dataset) -> list[KindOfFinding]:
    train, val = dataset.label_counts("train"), dataset.label_counts("val")
    names = [
        [f"{label} ({attribute.classes[label]}) of {attribute.name}" for label in range(len(attribute.classes))]
        for attribute in dataset.attributes
    ]
    untrained = [names[h][c] for h, counts in enumerate(train) for c, n in enumerate(counts) if not n]
    unmeasured = [names[h][c] for h, counts in enumerate(val) for c, n in enumerate(counts) if not n and train[h][c]]
    found = []
    if untrained:
        sentence = f"{_absent(untrained, 'train')} and can't be learnt"
        found.append(KindOfFinding("absent", len(untrained), sentence))
    if unmeasured:
        found.append(KindOfFinding("unmeasured", len(unmeasured), _absent(unmeasured, "val")))
    return found


def _absent(names: Sequence[str], split: str) -> str:
    several = len(names) > 1
    listed = f"{'classes' if several else 'class'} {_some(names)}"
    return printable(f"{listed} never {'occur' if several else 'occurs'} in {split}")


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - EXAMPLES} more" if len(names) > EXAMPLES else ""
    return ", ".join(names[:EXAMPLES]) + more


def _of_one_class(dataset: Dataset) -> KindOfFinding | None:
    names = [attribute.name for attribute in dataset.attributes if len(attribute.classes) == 1]
    if not names:
        return None
    several = len(names) > 1
    which = f"{'attributes' if several else 'attribute'} {_some(names)}"
    sentence = f"{which} {'have' if several else 'has'} one class, which is always predicted"
    return KindOfFinding("single", len(names), printable(sentence))


def _few(dataset: Dataset) -> KindOfFinding | None:
    """Validation images so few that chance decides which trial wins."""
    images = len(dataset.splits["val"])
    if images >= ENOUGH:
        return None
    # Of the attribute on which it is largest, at the majority baseline; where that is 0 or 1, as if it were a half.
    baselines = zip(majority_baseline(dataset).accuracies, dataset.class_counts, strict=True)
    shares = [share if 0 < share < 1 else 0.5 for share, classes in baselines if classes > 1]
    error = max((math.sqrt(share * (1 - share) / images) for share in shares), default=0.0)
    sentence = (
        f"val has {images} image{'s' if images > 1 else ''}: an accuracy's standard error is {100 * error:.0f} points"
    )
    return KindOfFinding("few", images, sentence)


def _read_all(scan: Scan, progress: Callable[[int, int], None] | None) -> tuple[dict[str, str], list[Finding]]:
    """The SHA-256 of every readable image's bytes, and a finding for each image that can't be decoded whole."""
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
                message = f"{image} is already listed in line {first[image]}"
                findings.append(Finding("warning", "duplicate", f"split/{split}.txt:{number}", message))
            first.setdefault(image, number)
    return findings


def _identical_images(scan: Scan, digests: dict[str, str]) -> list[Finding]:
    """One finding for each group of byte-identical images, and another where their labels disagree."""
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
            message = f"the same bytes occur {len(members)} times in {splits[0]}"
            findings.append(Finding("warning", "identical", place, message))
        if len(labellings) > 1:
            text = " and ".join(" ".join(map(str, row)) for row in labellings)
            findings.append(Finding("warning", "conflict", place, f"the same bytes have different labels: {text}"))
    return findings


def _class_counts(scan: Scan) -> list[Finding]:
    """A finding for each class that never occurs in a split or is rare there."""
    findings = []
    for split, rows in scan.rows.items():
        for head, attribute in enumerate(scan.attributes):
            counts = Counter(row[head] for row in rows if row is not None and head < len(row))
            for label, name in enumerate(attribute.classes):
                place = f"split/{split}_attr.txt"
                if counts[label] == 0:
                    severity: Severity = "info" if split == "test" else "warning"
                    message = f"{attribute.name} {name} ({label}) never occurs"
                    findings.append(Finding(severity, "absent", place, message))
                elif counts[label] < _RARE:
                    message = f"{attribute.name} {name} ({label}) occurs only {counts[label]} times"
                    findings.append(Finding("info", "rare", place, message))
    return findings


def _unlisted(scan: Scan) -> list[Finding]:
    """One finding that names the first image below img/ that no split lists, and counts them."""
    listed = {image for images in scan.images.values() for image in images}
    folder = scan.root / "img"
    if not folder.is_dir() or not listed:
        return []
    found = {p.relative_to(scan.root).as_posix() for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES}
    extra = sorted(found - listed)
    if not extra:
        return []
    return [Finding("info", "unlisted", extra[0], f"is in no split; so are {len(extra)} images of img/ in all")]
