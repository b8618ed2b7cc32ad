from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fashion.data.demo import ATTRIBUTES, draw_garment, write_demo
from fashion.data.layout import majority_baseline, read_dataset
from fashion.errors import DataError


def pixels(root: Path) -> np.ndarray:
    return np.stack([np.asarray(Image.open(path)) for path in sorted((root / "img").iterdir())])


def test_same_arguments_same_data_other_seed_other_data(tmp_path: Path) -> None:
    one, two, other = (write_demo(tmp_path / name, 12, 8, 8, 32, seed) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    assert np.array_equal(pixels(one), pixels(two))
    assert read_dataset(one).fingerprint() == read_dataset(two).fingerprint() != read_dataset(other).fingerprint()
    assert not np.array_equal(pixels(one), pixels(other))


def test_layout_names_and_unequal_classes(demo_root: Path) -> None:
    dataset = read_dataset(demo_root)
    assert {a.name: a.classes for a in dataset.attributes} == {name: tuple(c) for name, c in ATTRIBUTES.items()}
    for split, size in (("train", 96), ("val", 32), ("test", 24)):
        assert len(dataset.splits[split]) == size
        assert min(counts.min() for counts in dataset.label_counts(split)) >= 1
    assert 0.4 < majority_baseline(dataset).overall < 0.65
    assert Image.open(demo_root / dataset.splits["val"].images[0]).size == (48, 48)


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_each_class_shows_in_the_pixels(attribute: str) -> None:
    """Garments alike in all but one class differ visibly, drawn from the same random stream."""
    plain = {name: next(iter(classes)) for name, classes in ATTRIBUTES.items()}
    drawn = [
        np.asarray(draw_garment({**plain, attribute: name}, 48, np.random.default_rng(3))).astype(float)
        for name in ATTRIBUTES[attribute]
    ]
    for index, one in enumerate(drawn):
        for two in drawn[:index]:
            assert (np.abs(one - two).max(axis=2) > 25).sum() >= 15


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(DataError, match="new or empty"):
        write_demo(tmp_path, 8, 8, 8, 32)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_interrupted_drawing_leaves_nothing(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_demo(tmp_path / "demo", 8, 8, 8, 32, progress=stop)
    assert not list(tmp_path.iterdir())


def test_impossible_sizes_are_reported_together(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        write_demo(tmp_path / "demo", train=2, val=0, test=8, size=4)
    assert len(caught.value.problems) == 3
