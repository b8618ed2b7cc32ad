"""`data.folds`: train and val in K folds, the same for ever, that no group and no twins cross."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fashion.config.data import LabelReading, SplitRule
from fashion.data.layout import Dataset, read_dataset
from fashion.data.remote.pushed import Pushed
from fashion.data.splits.folds import in_folds
from fashion.errors import DataError
from tests.support.label_files import labelled
from tests.support.layouts import small

READING = LabelReading(attributes=("kind", "side"), folds=4)


def grouped(root: Path, n: int = 120, splits: tuple[str, ...] = ()) -> Path:
    draw = np.random.default_rng(1)
    rows = ["file_name,kind,side,group" + (",split" if splits else "")]
    for k in range(n):
        row = f"img/{k}.png,{'abc'[draw.integers(3)]},{'xy'[draw.integers(2)]},{k // 4}"
        rows.append(f"{row},{splits[k // 4 % len(splits)]}" if splits else row)
    return labelled(root, "\n".join(rows), n)


def fold_of(dataset: Dataset) -> dict[str, int]:
    assert dataset.folds is not None
    return dict(zip(dataset.splits["train"].images, dataset.folds.tolist(), strict=True))


def test_folds_are_of_train_and_val_and_keep_groups_and_twins_together(tmp_path: Path) -> None:
    path = grouped(tmp_path, splits=("train", "train", "val", "test"))
    (tmp_path / "img/1.png").write_bytes((tmp_path / "img/16.png").read_bytes())  # of another group
    listed = read_dataset(path, reading=READING._replace(folds=None))
    found = read_dataset(path, reading=READING)
    folds = fold_of(found)
    assert found.splits["val"].images == found.splits["train"].images
    assert set(folds) == {*listed.splits["train"].images, *listed.splits["val"].images}
    assert found.splits["test"].images == listed.splits["test"].images
    assert found.as_listed.fingerprint() == listed.fingerprint()
    sides: dict[int, set[int]] = {}
    for image, fold in folds.items():
        sides.setdefault(int(image[4:-4]) // 4, set()).add(fold)
    assert all(len(each) == 1 for each in sides.values())
    assert sides[0] == sides[4]
    sizes = np.bincount(list(folds.values()))
    assert len(sizes) == 4
    assert np.ptp(sizes) <= 8
    assert found.training_images == len(folds) - sizes.max()


def test_folds_are_the_same_for_ever_and_in_the_fingerprint(tmp_path: Path) -> None:
    path = grouped(tmp_path)
    found = read_dataset(path, reading=READING)
    told = "\n".join(f"{fold} {image}" for image, fold in sorted(fold_of(found).items()))
    assert hashlib.sha256(told.encode()).hexdigest()[:16] == "ba241bc9f9259311", (
        "data that were in folds would be divided anew"
    )
    head, *rows = path.read_text().splitlines()
    path.write_text("\n".join([head, *rows[::-1]]))
    assert fold_of(read_dataset(path, reading=READING)) == fold_of(found)
    others = [
        READING._replace(folds=None),
        READING._replace(folds=5),
        READING._replace(split=SplitRule(seed=1)),
    ]
    prints = {read_dataset(path, reading=each).fingerprint() for each in (READING, *others)}
    assert len(prints) == 4


def test_the_challenges_layout_has_folds_too(tmp_path: Path) -> None:
    found = read_dataset(small(tmp_path), reading=LabelReading(folds=2))
    assert found.folds is not None
    assert len(found.folds) == len(found.splits["val"])
    assert found.described()["folds"] == "2"


def test_what_can_not_be_in_folds_is_told(tmp_path: Path) -> None:
    dataset = read_dataset(grouped(tmp_path, 8), reading=LabelReading(attributes=("kind",), split=SplitRule(val=0.5)))
    with pytest.raises(DataError, match=r"data\.folds: must leave images in each of 20 folds; got 8 images"):
        in_folds(dataset, 20, None)
    packed = replace(dataset, packed=Pushed.__new__(Pushed))
    with pytest.raises(DataError, match=r"data\.folds: needs the images, which tell what is alike"):
        in_folds(packed, 2, None)
