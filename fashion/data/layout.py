"""A data set: its images, labels and splits, from whatever form it lies in (`fashion.data.forms.table`).

In the challenge's layout (`img/`, `split/{train,val,test}.txt`, `split/*_attr.txt`, `split/list_attr_cloth.txt`) copies
of the data differ: some have a header line in every file, some a count, some neither. All are read the same way. The
numbers of heads and classes come from the files, so any data set in this layout works.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fashion.config.data import AS_WRITTEN, LabelReading, SplitRule
from fashion.data.contents import contents_digest
from fashion.data.forms.table import scan_layout
from fashion.data.lists import CHALLENGE, LABELLED, MISSING, Attribute, Looking, Scan
from fashion.data.pictures.undecodable import undecodable
from fashion.data.remote.pushed import MANIFEST, Pushed
from fashion.data.splits.folds import in_folds
from fashion.errors import BlockedError, DataError, Problem

__all__ = [
    "Attribute",
    "Baseline",
    "Dataset",
    "Split",
    "dataset_of",
    "majority_baseline",
    "read_dataset",
    "read_unchanged",
    "split_labels",
]
_SHOWN = 20  # problems of one kind that an exception lists; further ones are only counted


@dataclass(frozen=True, eq=False)
class Split:
    """Images as paths relative to the data set's folder, and their labels (N, columns), as `Attribute` has them, or
    None. groups: of each image, those which stay on one side of a division; or none."""

    name: str
    images: tuple[str, ...]
    labels: NDArray[np.int64] | None
    groups: tuple[str | None, ...] = ()

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set without structural problems. Made by `read_dataset`.

    `packed` is set where packed caches below `root` replace the images. `skipped` are the images that the lists name
    and the splits lack, since they can't be decoded, each with the reason; `whole` is the data set with them. `form` is
    the name of the form in which it lies, `source` its label file, as messages name it, `file_column` the column of
    that which names the images, and `rule` how its splits were made, where the data had none.

    With `data.folds` train and val both are all images of the two together, `folds` (N,) uint8 is the fold of each, and
    `undivided` the data set with its own train and val.
    """

    root: Path
    attributes: tuple[Attribute, ...]
    splits: dict[str, Split]
    packed: Pushed | None = None
    skipped: Mapping[str, str] = field(default_factory=dict)
    whole: Dataset | None = None
    form: str = CHALLENGE
    source: str = ""
    rule: SplitRule | None = None
    file_column: str = ""
    folds: NDArray[np.uint8] | None = None
    undivided: Dataset | None = None

    def described(self) -> dict[str, str]:
        """How the data set was read, for a record: its form, its label file and the rule of its splits."""
        told = {"form": self.form, "label_file": self.source, "split": str(self.rule) if self.rule else ""}
        told["folds"] = str(self.folds.max() + 1) if self.folds is not None else ""
        return {name: value for name, value in told.items() if value}

    @property
    def as_listed(self) -> Dataset:
        """The data set with the splits that the data name or `data.split` made, whatever `data.folds` says."""
        return self.undivided or self

    @property
    def packed_splits(self) -> tuple[str, ...]:
        """The splits whose caches a trial reads. With folds that of train serves both, since they are the same."""
        return LABELLED if self.folds is None else LABELLED[:1]

    @property
    def training_images(self) -> int:
        """The least number of images that a model is trained on."""
        if self.folds is None:
            return len(self.splits["train"])
        return len(self.folds) - int(np.bincount(self.folds).max())

    def skipped_counts(self) -> dict[str, int]:
        """How many images each split lacks for that; splits that are complete are left out."""
        if self.undivided is not None:
            return self.undivided.skipped_counts()
        if self.whole is None:
            return {}
        left = {name: len(split) for name, split in self.splits.items()}
        counts = {name: len(split) - left.get(name, 0) for name, split in self.whole.splits.items()}
        return {name: count for name, count in counts.items() if count}

    @property
    def class_counts(self) -> tuple[int, ...]:
        """Number of classes of every head."""
        return tuple(len(attribute.classes) for attribute in self.attributes)

    @property
    def attribute_names(self) -> tuple[str, ...]:
        return tuple(attribute.name for attribute in self.attributes)

    def label_counts(self, split: str) -> list[NDArray[np.int64]]:
        """How often each class occurs in a labelled split: one array (classes,) per head, over what is labelled."""
        return [_class_counts(attribute, columns) for attribute, columns in self.by_attribute(split)]

    def missing_counts(self, split: str) -> list[int]:
        """For each head, how many images of a labelled split have no label."""
        return [int((columns == MISSING).all(axis=1).sum()) for _, columns in self.by_attribute(split)]

    def by_attribute(self, split: str) -> list[tuple[Attribute, NDArray[np.int64]]]:
        """Each attribute with its columns (N, its columns) of a split's labels."""
        ends = np.cumsum([attribute.columns for attribute in self.attributes])[:-1]
        return list(zip(self.attributes, np.split(self.labels(split), ends, axis=1), strict=True))

    def labels(self, split: str) -> NDArray[np.int64]:
        """Labels (N, columns) of a split. Raises DataError where it has none."""
        found = self.splits.get(split)
        if found is None or found.labels is None:
            have = ", ".join(name for name, other in self.splits.items() if other.labels is not None)
            raise DataError(
                "The split has no labels:",
                [Problem(self.place(split, "_attr"), "labels are needed here", fix=f"Labelled splits: {have}")],
            )
        return found.labels

    def place(self, split: str, end: str = "") -> str:
        """Where the data set names the images of a split, or with `end` "_attr" their labels."""
        return f"split/{split}{end}.txt" if self.form == CHALLENGE else f"{self.source or self.root.name}, {split}"

    def fingerprint(self, progress: Callable[[int, int], None] | None = None) -> str:
        """16 hex digits over lists, labels, names and every image's bytes. A copy elsewhere has the same fingerprint.

        Every call looks at the files, so a changed image is noticed. `contents_digest` says when images are read, and
        calls `progress(done, total)` meanwhile. Raises DataError where an image is missing.
        """
        if self.undivided is not None and self.folds is not None:
            folds = self.folds.tobytes()
            return hashlib.sha256(self.undivided.fingerprint(progress).encode() + b"\0folds\0" + folds).hexdigest()[:16]
        if self.whole is not None:  # its images need not be read another time
            names = "\0".join(sorted(self.skipped))
            return hashlib.sha256(f"{self.whole.fingerprint(progress)}\0{names}".encode()).hexdigest()[:16]
        digest = hashlib.sha256()
        told = [(a.name, a.classes, "multi_label") if a.multi_label else (a.name, a.classes) for a in self.attributes]
        digest.update(repr(told).encode())
        splits = sorted(self.splits.items())
        for name, split in splits:
            digest.update(f"\0{name}\0{len(split)}\0".encode())
            if split.labels is not None:
                digest.update(np.ascontiguousarray(split.labels).astype("<i8").tobytes())
        if self.packed is not None:
            digest.update(self.packed.contents.encode())
        else:
            digest.update(self.contents(progress).encode())
        return digest.hexdigest()[:16]

    def contents(self, progress: Callable[[int, int], None] | None = None) -> str:
        """`contents_digest` of all images that the lists name."""
        if (listed := self.undivided or self.whole) is not None:
            return listed.contents(progress)
        images = [image for _, split in sorted(self.splits.items()) for image in split.images]
        return contents_digest(self.root, images, progress)


@dataclass(frozen=True)
class Baseline:
    """Accuracy, in [0, 1], of always predicting each head's most frequent training class."""

    classes: tuple[int, ...]
    accuracies: tuple[float, ...]
    overall: float


def read_dataset(
    root: str | Path,
    follow_links: bool = False,
    on_error: str = "refuse",
    progress: Callable[[int, int], None] | None = None,
    reading: LabelReading = AS_WRITTEN,
    looking: Looking | None = None,
) -> Dataset:
    """Read a data set in any of the forms of `fashion.data.forms.table`: its folder, or its label file.

    follow_links: read through symbolic links that lead out of its folder, too. on_error: skip looks at every image, or
    remembers what came of it, and leaves out those that can't be decoded; `progress(done, total)` is called meanwhile.
    reading: data.attributes, data.missing, data.split and data.folds. looking: is told how many images are found to be
    there.

    Raises DataError with all structural problems at once, and where a labelled split would be left without images.
    """
    scan = scan_layout(root, follow_links, reading, looking)
    if scan.problems:
        raise DataError(f"The data set at {root} can't be used:", _shortened(scan.problems))
    dataset = dataset_of(scan)
    if scan.packed is not None and dataset.fingerprint() != scan.packed.fingerprint:
        where = "the lists and labels in split/" if dataset.form == CHALLENGE else f"the labels in {dataset.source}"
        rule = f"must match {where}, whose fingerprint is {dataset.fingerprint()}"
        problem = Problem(MANIFEST, rule, scan.packed.fingerprint, "Push the data set again")
        raise DataError(f"The data set at {root} can't be used:", [problem])
    dataset = _decodable(dataset, progress) if on_error == "skip" and scan.packed is None else dataset
    return dataset if reading.folds is None else in_folds(dataset, reading.folds, reading.split)


def dataset_of(scan: Scan) -> Dataset:
    """The data set that was scanned, in which no problem was found."""
    splits = {}
    for name, images in scan.images.items():
        rows = scan.rows.get(name)
        labels = scan.labels.get(name) if rows is None else np.asarray(rows, dtype=np.int64)
        if labels is not None:
            labels.setflags(write=False)
        splits[name] = Split(name, tuple(images), labels, tuple(scan.groups.get(name, ())))
    about: dict[str, Any] = {"form": scan.form, "source": scan.source, "rule": scan.rule}
    about["file_column"] = scan.file_column
    return Dataset(scan.root, scan.attributes, splits, scan.packed, **about)


def _class_counts(attribute: Attribute, columns: NDArray[np.int64]) -> NDArray[np.int64]:
    if attribute.multi_label:
        held: NDArray[np.int64] = (columns > 0).sum(axis=0)
        return held
    return np.bincount(columns[columns != MISSING], minlength=len(attribute.classes))


def _decodable(whole: Dataset, progress: Callable[[int, int], None] | None) -> Dataset:
    """The data set without the images that can't be decoded; itself where all can."""
    images = sorted({image for split in whole.splits.values() for image in split.images})
    skipped = undecodable(whole.root, images, whole.contents(), progress)
    if not skipped:
        return whole
    splits = {}
    for name, split in whole.splits.items():
        rows = [row for row, image in enumerate(split.images) if image not in skipped]
        if not rows and name not in LABELLED:
            continue  # nothing is trained on it
        if not rows:
            rule, first = "must have an image that can be decoded", split.images[0]
            problem = Problem(whole.place(name), rule, f"{first}: {skipped[first]}")
            raise DataError(f"The data set at {whole.root} can't be used:", [problem])
        labels = None if split.labels is None else split.labels[rows]
        if labels is not None:
            labels.setflags(write=False)
        groups = tuple(split.groups[row] for row in rows) if split.groups else ()
        splits[name] = Split(name, tuple(split.images[row] for row in rows), labels, groups)
    return replace(whole, splits=splits, skipped=skipped, whole=whole)


def read_unchanged(
    root: str | Path,
    fingerprint: str,
    follow_links: bool = False,
    on_error: str = "refuse",
    reading: LabelReading = AS_WRITTEN,
) -> Dataset:
    """The data set with which a sweep started. Images are read only if their size or times have changed.

    Raises BlockedError where a list, a label, a name or an image has changed or is missing.
    """
    changed = f"the data set at {root} has changed since this sweep started"
    mend = "Put the data back and run the same command again, or give the sweep another name (--name)."
    try:
        dataset = read_dataset(root, follow_links, on_error, reading=reading)
        if dataset.fingerprint() != fingerprint:
            raise BlockedError(f"{changed}. {mend}")
    except DataError as error:
        raise BlockedError(f"{changed}: {error}\n{mend}") from error
    return dataset


def majority_baseline(dataset: Dataset, split: str = "val") -> Baseline:
    """Score each head's majority class in train on `split` (59.73 % on the challenge's val), over what is labelled.

    For a multi-label attribute that is what most training images have, label by label, and `classes` has the most
    frequent one.
    """
    majority = [int(counts.argmax()) for counts in dataset.label_counts("train")]
    right, labelled = [], []
    for (attribute, mine), (_, train), most in zip(
        dataset.by_attribute(split), dataset.by_attribute("train"), majority, strict=True
    ):
        guess = (train > 0).sum(axis=0) * 2 > (train >= 0).sum(axis=0) if attribute.multi_label else most
        known = mine != MISSING
        right.append(int(((mine == guess) & known).sum()))
        labelled.append(int(known.sum()))
    accuracies = tuple(hits / max(count, 1) for hits, count in zip(right, labelled, strict=True))
    return Baseline(tuple(majority), accuracies, sum(right) / max(sum(labelled), 1))


def split_labels(attributes: Sequence[Attribute], labels: NDArray[Any]) -> Iterator[tuple[Attribute, NDArray[Any]]]:
    """Each attribute with its labels of a matrix (N, columns): (N,), or for a multi-label one (N, classes)."""
    start = 0
    for attribute in attributes:
        columns = labels[:, start : start + attribute.columns]
        yield attribute, columns if attribute.multi_label else columns[:, 0]
        start += attribute.columns


def _shortened(problems: Sequence[tuple[str, Problem]]) -> list[Problem]:
    """The first problems of each kind, and how many more there are: a wrong root would have thousands."""
    shown: list[Problem] = []
    counts: dict[str, int] = {}
    for kind, problem in problems:
        counts[kind] = counts.get(kind, 0) + 1
        if counts[kind] <= _SHOWN:
            shown.append(problem)
    for kind, count in counts.items():
        if count > _SHOWN:
            shown.append(
                Problem("...", f"and {count - _SHOWN} more of kind {kind!r}", fix="fashion-sweep data check lists all")
            )
    return shown
