"""What `train.teacher` names, found and read before any trial starts: a run, or a file of class probabilities."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fashion.config.trial import TrialConfig, read_config
from fashion.data.layout import Dataset
from fashion.errors import DataError, Problem
from fashion.prediction.probabilities import read_probabilities
from fashion.reading import validation_files
from fashion.record import ranking
from fashion.record.run import Run
from fashion.record.trial_files import predictions_path
from fashion.record.validate import attributes_of
from fashion.training.distillation.soft_labels import SoftLabels

FIELD = "train.teacher"
# Where `best --predict --split train` writes, of an ensemble and of a single model.
ANSWERS = ("predictions/ensemble-train/probabilities.parquet", "predictions/train/probabilities.parquet")
# Images, the classes of each attribute, and their probabilities (N, classes).
Probabilities = tuple[list[str], dict[str, tuple[str, ...]], list[NDArray[np.float32]]]


@dataclass(frozen=True)
class TeacherFile:
    """Where a teacher's probabilities are. run: what they come from, where that is known. unseen: whether each is of a
    model that was trained without the image, as the trials of `data.folds` record them."""

    path: Path
    run: Run | None = None
    unseen: bool = False

    @property
    def has_seen_val(self) -> bool:
        """Whether validation images were among those that its models were trained on."""
        return self.run is not None and (_folds(self.run) or _any(self.run, lambda one: one.train.fit_on != "train"))

    def read(self) -> Probabilities:
        """Raises SubmissionError or RunError for a damaged file."""
        if self.run is None or not self.unseen:
            return read_probabilities(self.path)
        attributes = attributes_of(self.run.manifest["attributes"])
        images, found = validation_files.read_probabilities(self.path, attributes)
        return images.to_pylist(), dict(attributes), found


def teacher_file(value: str) -> TeacherFile:
    """What the field names. Raises DataError where there is no such thing, RunError for a damaged run."""
    place = Path(os.path.expanduser(value))
    if place.is_file():
        folder = place.absolute().parents[2]  # RUN/predictions/train/probabilities.parquet
        return TeacherFile(place, Run.open(folder) if (folder / "manifest.json").is_file() else None)
    if not (place / "manifest.json").is_file():
        raise _refused("must be a run's folder on this machine, or a Parquet file of class probabilities", value)
    run = Run.open(place)
    if _folds(run):
        best = ranking.best(run)
        return TeacherFile(predictions_path(run.trial_dir(best.trial), best.epoch), run, unseen=True)
    found = next((place / answer for answer in ANSWERS if (place / answer).is_file()), None)
    if found is None:
        command = f"fashion-sweep best {place.name} --storage {place.parent} --predict --split train"
        raise _refused("the run must have predicted the training images", value, f"Type: {command}")
    return TeacherFile(found, run)


def read_teachers(values: Iterable[str], dataset: Dataset, say: Callable[[str], None]) -> dict[str, SoftLabels]:
    """The soft labels of each teacher, which must have all images that trials are trained on. say: is told of one that
    has seen validation images.

    Raises DataError where one is missing or of another data set, and what `TeacherFile.read` raises.
    """
    found = {}
    for value in dict.fromkeys(values):
        file = teacher_file(value)
        found[value] = labels = _soft_labels(value, file, dataset)
        images = dataset.splits["train"].images
        if lacking := labels.lacking(images):
            shown = ", ".join(lacking[:3]) + (", ..." if len(lacking) > 3 else "")
            rule = f"must have probabilities for all {len(images):,} training images"
            raise _refused(rule, f"{value}, without {len(lacking):,} of them ({shown})")
        if file.has_seen_val:
            say(
                f"{FIELD} {value}: its models were trained on validation images, so that the scores of trials that "
                "learn from it are better than they would be on new images"
            )
    return found


def _soft_labels(value: str, file: TeacherFile, dataset: Dataset) -> SoftLabels:
    images, attributes, probabilities = file.read()
    wanted = {attribute.name: tuple(attribute.classes) for attribute in dataset.attributes}
    if attributes != wanted:
        rule = f"must have the data set's attributes and classes, {_shown(wanted)}"
        raise _refused(rule, f"{value} with {_shown(attributes)}")
    by_name = dict(zip(attributes, probabilities, strict=True))
    with open(file.path, "rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return SoftLabels(tuple(images), tuple(by_name[name] for name in wanted), digest)


def _folds(run: Run) -> bool:
    return _any(run, lambda config: config.data.folds is not None)


def _any(run: Run, holds: Callable[[TrialConfig], bool]) -> bool:
    """Whether it holds for some trial of the run."""
    return any(holds(read_config(trial.config)) for trial in run.trials.values())


def _shown(attributes: Mapping[str, tuple[str, ...]]) -> str:
    return ", ".join(f"{name} ({len(classes)})" for name, classes in attributes.items())


def _refused(rule: str, value: str, fix: str = "") -> DataError:
    return DataError("The teacher can't be used:", [Problem(FIELD, rule, value, fix)])
