"""What is odd about a data set, as far as it can be found without decoding an image: what `run` says at its start."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Sequence
from pathlib import Path

from fashion.data.layout import Dataset, majority_baseline
from fashion.data.pictures.findings import EXAMPLES, KindOfFinding, skipped_images
from fashion.errors import printable

ENOUGH = 100  # validation images from which an accuracy's standard error is at most 5 points
GLIMPSED = 4096  # bytes


def findings_by_kind(dataset: Dataset) -> list[KindOfFinding]:
    """What is odd about a data set, as far as it can be found without decoding an image: images of other splits that
    are in train, images listed twice, classes that never occur, attributes of one class, and too few validation images.
    And how it was divided, where it has no splits.
    """
    found = [_leaks(dataset), _listed_twice(dataset), *_never(dataset), _of_one_class(dataset), _few(dataset)]
    found += [_skipped(dataset), _divided(dataset)]
    return [each for each in found if each is not None]


def _skipped(dataset: Dataset) -> KindOfFinding | None:
    count = len(dataset.skipped)
    return KindOfFinding("skipped", count, skipped_images(dataset)) if count else None


def _divided(dataset: Dataset) -> KindOfFinding | None:
    if dataset.rule is None:
        return None
    sizes = ", ".join(f"{name} {len(split):,}" for name, split in dataset.splits.items())
    sentence = f"the data set has no splits of its own and is divided by data.split: {dataset.rule} ({sizes})"
    return KindOfFinding("divided", 1, printable(sentence))


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
    names = [each.name for each in dataset.attributes if len(each.classes) == 1 and not each.multi_label]
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
