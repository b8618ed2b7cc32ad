"""`data.folds`: train and val together in K folds, each of which is predicted by a model that has not seen it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from fashion.config.data import SplitRule
from fashion.data.lists import LABELLED
from fashion.data.splits.divide import Undivided, divide
from fashion.errors import DataError, Problem

if TYPE_CHECKING:  # the layout imports this module
    from fashion.data.layout import Dataset


def in_folds(dataset: Dataset, count: int, split: SplitRule | None) -> Dataset:
    """The data set with train and val merged and divided into `count` folds of about the same size.

    The folds are made as `data.split` makes splits: stratified over all attributes, groups and images with the same
    bytes in one fold, the same on every machine. split: data.split, whose seed is the folds', too.

    Raises DataError where that is not possible.
    """
    parts = [dataset.splits[name] for name in LABELLED]
    if dataset.packed is not None:
        rule, fix = "needs the images, which tell what is alike", "Push the images, without packed caches"
        raise _refused(dataset, rule, "packed caches alone", fix)
    images = tuple(image for part in parts for image in part.images)
    labels = np.concatenate([dataset.labels(name) for name in LABELLED])
    labels.setflags(write=False)
    groups: tuple[str | None, ...] = ()
    if any(part.groups for part in parts):
        groups = tuple(group for part in parts for group in part.groups or [None] * len(part))
    undivided = Undivided(dataset.root, images, labels, dataset.attributes, groups)
    folds = divide(undivided, (1 / count,) * count, split.seed if split is not None else 0)
    if len(np.unique(folds)) < count:
        filled = f"{len(images):,} images of train and val, which fill {len(np.unique(folds))}"
        raise _refused(dataset, f"must leave images in each of {count} folds", filled, "Write fewer folds")
    merged = {part.name: replace(part, images=images, labels=labels, groups=groups) for part in parts}
    return replace(dataset, splits={**dataset.splits, **merged}, folds=folds, undivided=dataset)


def _refused(dataset: Dataset, rule: str, value: str, fix: str) -> DataError:
    return DataError(f"The data set at {dataset.root} can't be used:", [Problem("data.folds", rule, value, fix)])
