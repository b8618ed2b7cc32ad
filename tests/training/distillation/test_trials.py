"""Trials that learn from a teacher: on pixels, and on what a frozen backbone has made of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fashion.data.layout import Dataset
from fashion.model.pretrained.resolved_weights import ResolvedWeights
from fashion.training.distillation.soft_labels import SoftLabels
from fashion.training.feed import with_cached
from fashion.training.loop import TrialInputs, fit
from tests.support.labelled import DIGIT, SIZE, configured, digits, opened

NO_WEIGHTS = ResolvedWeights("none")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASHION_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return digits(tmp_path_factory.mktemp("digits"), missing=0.0, attributes=(DIGIT, SIZE))


def knowing(dataset: Dataset) -> SoftLabels:
    """A teacher that is nearly certain of the truth, and lists the images in another order."""
    split = dataset.splits["train"]
    order = np.random.default_rng(1).permutation(len(split))
    labels = dataset.labels("train")[order]
    heads = tuple(
        (np.eye(len(each.classes))[labels[:, head]] * 0.98 + 0.02 / len(each.classes)).astype(np.float32)
        for head, each in enumerate(dataset.attributes)
    )
    return SoftLabels(tuple(split.images[row] for row in order), heads, "0" * 64)


def few_labels(dataset: Dataset) -> Dataset:
    """The same with one label in twelve."""
    split = dataset.splits["train"]
    labels = np.array(split.labels)
    labels[np.arange(len(labels)) % 12 != 0] = -1
    return replace(dataset, splits={**dataset.splits, "train": replace(split, labels=labels)})


def trained(dataset: Dataset, folder: Path, teacher: SoftLabels | None, **train: Any) -> list[dict[str, float]]:
    wanted = {"epochs": 8, **train, **({"teacher": "runs/teacher"} if teacher else {})}
    config = configured(dataset.root, None, **wanted)
    data = opened(dataset, config)
    if teacher is not None:
        data = replace(data, soft_labels=teacher.of(data.train.names))
    data = with_cached(data, config, NO_WEIGHTS)
    return [report.metrics for report in fit(TrialInputs(config, data, NO_WEIGHTS, folder / "trials" / "0000"))]


@pytest.mark.parametrize(
    "train",
    [
        {"mixup": 0.2, "teacher_temperature": 2.0},
        pytest.param({}, marks=pytest.mark.slow),
        pytest.param({"mode": "probe", "lr": 0.05, "epochs": 60}, marks=pytest.mark.slow),
    ],
)
def test_a_teacher_makes_up_for_labels_that_are_missing(
    dataset: Dataset, tmp_path: Path, train: dict[str, Any]
) -> None:
    few = few_labels(dataset)
    alone = trained(few, tmp_path / "alone", None, **{k: v for k, v in train.items() if "teacher" not in k})
    taught = trained(few, tmp_path / "taught", knowing(dataset), **train)
    assert taught[-1]["val_accuracy"] > alone[-1]["val_accuracy"] + 0.05


def test_a_trial_without_its_soft_labels_is_a_bug(dataset: Dataset, tmp_path: Path) -> None:
    config = configured(dataset.root, teacher="runs/teacher")
    data = opened(dataset, config)
    with pytest.raises(ValueError, match="needs its soft labels"):
        next(fit(TrialInputs(config, data, NO_WEIGHTS, tmp_path / "trials" / "0000")))


def test_images_are_found_by_name_and_those_without_numbers_are_lacking(dataset: Dataset) -> None:
    teacher, names = knowing(dataset), dataset.splits["train"].images
    np.testing.assert_array_equal(teacher.of(names)[:, :10].argmax(1), dataset.labels("train")[:, 0])
    assert teacher.lacking(names) == []
    assert np.isnan(teacher.of([names[0], "img/other.png"])).all(axis=1).tolist() == [False, True]
    holed = replace(teacher, probabilities=(teacher.probabilities[0].copy(), teacher.probabilities[1]))
    holed.probabilities[0][5, 2] = np.nan
    assert holed.lacking([*names, "img/other.png"]) == [teacher.images[5], "img/other.png"]
