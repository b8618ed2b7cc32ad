"""The drawn label file: several attributes, one multi-label, labels that are missing, groups; the same each time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fashion.config.data import LabelReading, SplitRule
from fashion.data.convert.demo_labels import MULTI_LABEL, TOLD, write_label_demo
from fashion.data.demo import EXTRAS, draw_garment
from fashion.data.layout import read_dataset
from fashion.errors import DataError


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_label_demo(tmp_path_factory.mktemp("data") / "people", 80, size=32)


def test_it_is_a_data_set_with_everything_that_a_label_file_may_have(file: Path) -> None:
    assert file.name == "labels.csv"
    dataset = read_dataset(file)
    assert dataset.rule == SplitRule()  # it has no splits
    assert dataset.attribute_names == (*TOLD, MULTI_LABEL)
    assert [each.multi_label for each in dataset.attributes] == [False, False, False, True]
    assert set(dataset.attributes[-1].classes) == set(EXTRAS)
    lost = np.array([dataset.missing_counts(name) for name in ("train", "val", "test")]).sum(axis=0)
    assert ((lost > 0) & (lost < 30)).all()
    traits = dict(zip(dataset.attribute_names, dataset.by_attribute("train"), strict=True))[MULTI_LABEL][1]
    assert {0, 1, 2} <= set(traits[traits.min(axis=1) >= 0].sum(axis=1).tolist())


def test_groups_stay_together(file: Path) -> None:
    dataset = read_dataset(file, reading=LabelReading(split=SplitRule(group="group")))
    group = dict(line.split(",")[:2] for line in file.read_text().splitlines()[1:])
    sides: dict[str, set[str]] = {}
    for name, split in dataset.splits.items():
        for image in split.images:
            sides.setdefault(group[image], set()).add(name)
    assert 10 < len(sides) < 80
    assert all(len(each) == 1 for each in sides.values())


def test_same_arguments_same_files(file: Path, tmp_path: Path) -> None:
    again, other = (write_label_demo(tmp_path / str(seed), 80, size=32, seed=seed) for seed in (0, 1))
    assert again.read_bytes() == file.read_bytes()
    assert read_dataset(again).fingerprint() == read_dataset(file).fingerprint()
    assert other.read_bytes() != file.read_bytes()


def test_each_extra_shows_in_the_pixels() -> None:
    names = {"pattern": "solid", "sleeve": "sleeveless", "length": "maxi_length", "neckline": "crew_neckline",
             "fabric": "cotton", "fit": "regular"}  # fmt: skip
    drawn = [np.asarray(draw_garment(names, 64, np.random.default_rng(0), extras)).astype(int)
             for extras in ((), *((name,) for name in EXTRAS))]  # fmt: skip
    for one in range(len(drawn)):
        for two in range(one):
            assert (abs(drawn[one] - drawn[two]).max(axis=2) > 40).sum() > 10


def test_what_is_there_is_not_overwritten(file: Path) -> None:
    with pytest.raises(DataError, match="must be new or empty"):
        write_label_demo(file.parent, 80)
