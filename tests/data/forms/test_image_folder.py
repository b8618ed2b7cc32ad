"""ImageFolders, with splits and without."""

from __future__ import annotations

from pathlib import Path

import pytest

from fashion.data.convert.convert import convert
from fashion.data.layout import read_dataset
from fashion.data.lists import Attribute
from fashion.errors import DataError
from tests.support.label_files import pictures

NAMES = [
    f"{split}/{kind}/{n}.png"
    for split, count in (("train", 4), ("valid", 2), ("test", 2))
    for kind in ("10", "9")
    for n in range(count)
]


def test_a_csv_of_its_paths_is_the_same_data_set(tmp_path: Path) -> None:
    dataset = read_dataset(pictures(tmp_path / "d", NAMES))
    assert dataset.form == "ImageFolder"
    assert dataset.attributes == (Attribute("label", ("9", "10")),), "numbers as numbers"
    assert dataset.labels("val").tolist() == [[1], [1], [0], [0]]
    rows = [f"{name},{name.split('/')[1]},{name.split('/')[0]}" for name in NAMES]
    (tmp_path / "d/labels.csv").write_text("\n".join(["file_name,label,split", *rows]))
    assert read_dataset(tmp_path / "d/labels.csv").fingerprint() == dataset.fingerprint()


def test_torchvision_finds_the_same_images(tmp_path: Path) -> None:
    from torchvision.datasets import ImageFolder

    names = [f"train/{kind}/{deep}{n}.png" for kind in ("cat", "dog") for deep in ("", "more/") for n in range(2)]
    dataset = read_dataset(pictures(tmp_path, [*names, "val/cat/1.png", "val/dog/1.png"]))
    theirs = ImageFolder(tmp_path / "train")
    assert list(dataset.attributes[0].classes) == theirs.classes
    assert sorted((str(tmp_path / image), int(label)) for image, (label,) in zip(
        dataset.splits["train"].images, dataset.labels("train"), strict=True)) == sorted(theirs.samples)  # fmt: skip


def test_without_splits_it_is_divided(tmp_path: Path) -> None:
    dataset = read_dataset(pictures(tmp_path, [f"{kind}/{n}.png" for kind in ("cat", "dog") for n in range(20)]))
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 28, "val": 6, "test": 6}
    assert [counts.tolist() for counts in dataset.label_counts("val")] == [[3, 3]]
    assert dataset.described() == {"form": "ImageFolder", "split": "{val: 0.15, test: 0.15, seed: 0}"}


def test_what_does_not_belong_is_told(tmp_path: Path) -> None:
    pictures(tmp_path, [*NAMES, "trial/9/1.png"])
    (tmp_path / "train/9/2.png").unlink()
    (tmp_path / "train/9/2.png").symlink_to("/etc/passwd")
    with pytest.raises(DataError) as caught:
        read_dataset(tmp_path)
    assert "a folder beside train is named after a split" in str(caught.value)
    assert "must lie in the data set's folder" in str(caught.value)


def test_pictures_in_test_itself_have_no_label(tmp_path: Path) -> None:
    names = [name for name in NAMES if not name.startswith("test")]
    dataset = read_dataset(pictures(tmp_path, [*names, "test/1.png"]))
    assert dataset.splits["test"].images == ("test/1.png",)
    assert dataset.splits["test"].labels is None


def test_without_val_a_share_of_train_is_asked_for(tmp_path: Path) -> None:
    from fashion.config.data import LabelReading, SplitRule

    pictures(tmp_path, [name for name in NAMES if not name.startswith("valid")])
    with pytest.raises(DataError, match="some images must be in val"):
        read_dataset(tmp_path)
    dataset = read_dataset(tmp_path, reading=LabelReading(split=SplitRule(val=0.25)))
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 6, "val": 2, "test": 4}


def test_splits_are_not_taken_for_classes(tmp_path: Path) -> None:
    pictures(tmp_path, ["train/1.png", "train/2.png", "test/1.png"])
    with pytest.raises(DataError, match="a split's folder holds a folder for each class"):
        read_dataset(tmp_path)


def test_it_becomes_a_label_file(tmp_path: Path) -> None:
    from fashion.config.data import LabelReading

    dataset = read_dataset(pictures(tmp_path / "d", NAMES))
    convert(tmp_path / "d", tmp_path / "labels.jsonl", False, LabelReading())
    assert read_dataset(tmp_path / "labels.jsonl").fingerprint() == dataset.fingerprint()
