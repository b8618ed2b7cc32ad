"""What the settings of an epoch do to the batches that a trial sees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fashion.config.data import DataConfig
from fashion.config.trial import TrialConfig
from fashion.data.batches import ALONE
from fashion.data.layout import read_dataset
from fashion.data.pack import Pack
from fashion.training.feed import PixelFeed, TrainingData


@pytest.fixture(scope="module")
def data(demo_root: Path) -> TrainingData:
    dataset = read_dataset(demo_root)
    train, val = (Pack.open_or_build(dataset, split, 40) for split in ("train", "val"))
    return TrainingData(train, val, dataset.attributes, dataset.fingerprint())


def configured(data: dict[str, Any], **train: Any) -> TrialConfig:
    return TrialConfig.model_validate(
        {
            "data": {"root": "unused", "resize": 40, "crop": 32, **data},
            "model": {"backbone": "tiny", "weights": "none"},
            "train": {"batch_size": 16, **train},
        }
    )


@pytest.mark.parametrize(
    ("epochs", "sides"),
    [(1, [300]), (2, [128, 300]), (3, [128, 214, 300]), (4, [128, 185, 243, 300]), (6, [128, 128, 185, 243, 243, 300])],
)
def test_training_crops_grow_in_four_stages(epochs: int, sides: list[int]) -> None:
    config = DataConfig(root="unused", crop_mode="resized", train_crop_from=128)
    assert [config.side_in(epoch, epochs) for epoch in range(1, epochs + 1)] == sides


def test_a_trial_sees_growing_images_and_is_evaluated_at_its_crop(data: TrainingData) -> None:
    config = configured({"crop_mode": "resized", "train_crop": 48, "train_crop_from": 24}, epochs=4)
    feed = PixelFeed(config, data, ALONE)
    shapes = [{tuple(batch.images.shape[1:]) for batch in feed.train(epoch)} for epoch in (1, 2, 3, 4)]
    assert shapes == [{(3, side, side)} for side in (24, 32, 40, 48)]
    assert {tuple(batch.images.shape[1:]) for batch in feed.validate()} == {(3, 32, 32)}


def test_balanced_sampling_shows_rare_classes_more_often(data: TrainingData) -> None:
    def least(power: float) -> np.ndarray:
        feed = PixelFeed(configured({}, epochs=20, balanced_sampling=power), data, ALONE)
        targets = np.concatenate([batch.targets.numpy() for epoch in range(1, 21) for batch in feed.train(epoch)])
        return np.array([np.bincount(column).min() / len(column) for column in targets.T])

    assert (least(1.0) > least(0.0)).all(), "of each attribute the rarest class"
