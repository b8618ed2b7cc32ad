"""What a division by groups is worth: where the walls behind people tell who they are, leaks look like skill."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fashion.config.data import LabelReading, SplitRule
from fashion.data.layout import Dataset, read_dataset
from tests.support.grouped import draw_people


def pixels(dataset: Dataset, split: str) -> tuple[np.ndarray, np.ndarray]:
    images = [np.asarray(Image.open(dataset.root / name), float).ravel() for name in dataset.splits[split].images]
    return np.stack(images), dataset.labels(split)[:, 0]


def test_leaking_groups_is_worth_ten_points_and_a_division_by_groups_gains_none(tmp_path: Path) -> None:
    """Nearest neighbours, as they remember most easily; against 100 people that nobody has seen."""
    neighbors = pytest.importorskip("sklearn.neighbors")
    path = draw_people(tmp_path / "known", 100)
    others = read_dataset(draw_people(tmp_path / "new", 100, seed=1), reading=LabelReading(attributes=("label",)))
    new = [np.concatenate(parts) for parts in zip(pixels(others, "train"), pixels(others, "val"), strict=True)]
    told, true = {}, {}
    for group in (None, "person"):
        rule = SplitRule(val=0.3, test=0.0, group=group)
        dataset = read_dataset(path, reading=LabelReading(attributes=("label",), split=rule))
        model = neighbors.KNeighborsClassifier(3).fit(*pixels(dataset, "train"))
        told[group], true[group] = model.score(*pixels(dataset, "val")), model.score(*new)
    assert told[None] - true[None] > 0.10
    assert told["person"] < true["person"] + 0.02
