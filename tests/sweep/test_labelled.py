"""A spec and a data set's labels that don't go together are refused before anything starts, in words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fashion.data.layout import Dataset, read_dataset
from fashion.data.lists import MISSING, Attribute
from fashion.errors import DataError
from fashion.spec.sweep_spec import SweepSpec, load_spec
from fashion.sweep.described import labels_of
from fashion.sweep.labelled import require_labels, unfit_for_labels


@pytest.fixture(scope="module")
def plain(demo_root: Path) -> Dataset:
    return read_dataset(demo_root)


def relabelled(dataset: Dataset, split: str, rows: slice, columns: slice | int, label: int = MISSING) -> Dataset:
    labels = dataset.labels(split).copy()
    labels[rows, columns] = label
    return replace(dataset, splits={**dataset.splits, split: replace(dataset.splits[split], labels=labels)})


def multi_label(dataset: Dataset) -> Dataset:
    """Its first two attributes become one multi-label attribute of two classes."""
    splits = {
        name: replace(split, labels=None if split.labels is None else (split.labels > 0).astype(int))
        for name, split in dataset.splits.items()
    }
    attributes = (Attribute("traits", ("a", "b"), multi_label=True), *dataset.attributes[2:])
    return replace(dataset, splits=splits, attributes=attributes)


def load(tmp_path: Path, *overrides: str) -> SweepSpec:
    path = tmp_path / "spec.yaml"
    path.write_text("data: {root: data, resize: 32, crop: 32}\nmodel: {backbone: tiny, weights: none}")
    return load_spec(path, overrides)


def test_an_attribute_that_is_labelled_nowhere_is_refused(plain: Dataset) -> None:
    require_labels(plain)
    require_labels(relabelled(plain, "val", slice(1, None), 0))
    lacking = relabelled(relabelled(plain, "val", slice(None), 1), "train", slice(None), 0)
    with pytest.raises(DataError) as caught:
        require_labels(lacking)
    first, second = plain.attributes[:2]
    assert [(each.place, each.rule, each.value) for each in caught.value.problems] == [
        (f"attribute {first.name}", "must be labelled for some image of train", "0 of 96 images"),
        (f"attribute {second.name}", "must be labelled for some image of val", "0 of 32 images"),
    ]


def test_what_multi_label_attributes_lack_is_refused(plain: Dataset, tmp_path: Path) -> None:
    asking = load(tmp_path, "train.loss={choice: [focal, report]}", "scheduler.metric=val_loss_report")
    assert unfit_for_labels(asking, plain) == []
    found = unfit_for_labels(asking, multi_label(plain))
    assert [each.place for each in found] == ["train.loss", "scheduler.metric"]
    assert "an image may have several of the classes of traits" in found[0].rule
    assert (found[0].value, found[0].fix) == ("report", "Use cross_entropy or focal")
    assert unfit_for_labels(load(tmp_path, "train.loss=focal"), multi_label(plain)) == []


def test_an_exact_match_needs_an_image_with_all_labels(plain: Dataset, tmp_path: Path) -> None:
    asking = load(tmp_path, "scheduler.metric=val_exact_match")
    half = relabelled(relabelled(plain, "val", slice(0, 16), 0), "val", slice(16, None), 1)
    assert unfit_for_labels(asking, plain) == []
    (found,) = unfit_for_labels(asking, half)
    assert "no validation image has a label for every attribute" in found.rule
    assert unfit_for_labels(load(tmp_path), half) == []


def test_the_manifest_counts_what_is_known(plain: Dataset) -> None:
    assert "known_labels" not in labels_of(plain)
    partly = relabelled(plain, "val", slice(0, 5), 0)
    said = labels_of(partly)
    heads = len(plain.attributes)
    assert said["known_labels"]["val"] == {"columns": [[27], *[[32]] * (heads - 1)], "images": 27}
    assert said["known_labels"]["train"] == {"columns": [[96]] * heads, "images": 96}
    assert sum(said["label_counts"]["val"][0]) == 27
    multi = labels_of(multi_label(plain))
    assert multi["known_labels"]["val"]["columns"][0] == [32, 32]
    assert multi["label_counts"]["val"][0] == (plain.labels("val")[:, :2] > 0).sum(0).tolist()
