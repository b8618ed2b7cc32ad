"""Training and validation images in one cache: the same pixels and labels as in the two that it is made of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fashion.data.layout import Dataset, Split, read_dataset
from fashion.data.pack import Pack
from fashion.data.splits import joined
from fashion.data.splits.joined import JOINED, joined_pack


@pytest.fixture(scope="module")
def dataset(demo_root: Path) -> Dataset:
    return read_dataset(demo_root)


def packs(dataset: Dataset, folder: Path) -> tuple[Pack, Pack]:
    train, val = (Pack.open_or_build(dataset, split, 24, cache_dir=folder) for split in ("train", "val"))
    return train, val


def test_both_are_in_it_training_images_first(dataset: Dataset, tmp_path: Path) -> None:
    train, val = packs(dataset, tmp_path)
    seen: list[tuple[int, int]] = []
    both = joined_pack(train, val, tmp_path, lambda done, total: seen.append((done, total)))
    assert both.names == [*train.names, *val.names]
    np.testing.assert_array_equal(both.images, np.concatenate([train.images, val.images]))
    assert both.labels is not None
    np.testing.assert_array_equal(both.labels, np.concatenate([dataset.labels("train"), dataset.labels("val")]))
    assert seen[-1] == (128, 128)
    assert both.metadata == {**train.metadata, "split": JOINED, "rows": "128"}
    assert Pack.open(both.path, verify=True).names == both.names  # its checksums are those of its pixels
    seen.clear()
    assert joined_pack(train, val, tmp_path, lambda *told: seen.append(told)).path == both.path
    assert not seen


def test_an_interrupted_one_goes_on(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joined, "_AT_ONCE", 10 * 24 * 24 * 3)  # ten images at a time
    train, val = packs(dataset, tmp_path)

    def interrupted(done: int, total: int) -> None:
        if done == 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        joined_pack(train, val, tmp_path, interrupted)
    told: list[int] = []
    both = joined_pack(train, val, tmp_path, lambda done, total: told.append(done))
    assert told == [*range(1, 41), 50, 60, 70, 80, 90, 96, 106, 116, 126, 128]
    np.testing.assert_array_equal(both.images, np.concatenate([train.images, val.images]))
    assert len(Pack.open(both.path, verify=True)) == 128


def test_a_damaged_one_is_built_again(dataset: Dataset, tmp_path: Path) -> None:
    train, val = packs(dataset, tmp_path)
    path = joined_pack(train, val, tmp_path).path
    del dataset
    path.write_bytes(path.read_bytes()[:-100])
    assert len(joined_pack(train, val, tmp_path)) == 128


def test_an_image_of_both_splits_is_there_once(dataset: Dataset, tmp_path: Path) -> None:
    val = dataset.splits["val"]
    twice = dataset.splits["train"].images[3]
    images = (twice, *val.images[1:])
    changed = replace(dataset, splits={**dataset.splits, "val": Split("val", images, val.labels)})
    both = joined_pack(*packs(changed, tmp_path), tmp_path)
    assert len(both) == 127
    assert both.names.count(twice) == 1
    assert both.labels is not None
    np.testing.assert_array_equal(both.labels[both.names.index(twice)], dataset.labels("train")[3])
    np.testing.assert_array_equal(both.labels[96:], dataset.labels("val")[1:])
