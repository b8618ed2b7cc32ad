"""`train.fit_on: train+val`: what is trained on, and which epoch's weights are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fashion.data.layout import Dataset, read_dataset
from fashion.data.pack import Pack
from fashion.data.splits.joined import JOINED, joined_pack
from fashion.model.pretrained.resolved_weights import ResolvedWeights
from fashion.record.trial_files import kept_epochs
from fashion.training.features import open_features
from fashion.training.feed import PixelFeed, TrainingData
from fashion.training.loop import TrialInputs, fit
from fashion.training.worker import training_data
from tests.support.labelled import configured, digits, opened


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return digits(tmp_path_factory.mktemp("digits") / "data")


@pytest.mark.parametrize(("fit_on", "kept"), [("train", 0), (JOINED, 3)])
def test_the_last_epoch_is_kept_where_none_can_be_called_best(
    dataset: Dataset, tmp_path: Path, fit_on: str, kept: int
) -> None:
    """No val_loss can beat -1: an ordinary trial would keep nothing."""
    config = configured(dataset.root, fit_on=fit_on)
    data = opened(dataset, config)
    inputs = TrialInputs(config, data, ResolvedWeights("none"), tmp_path, best_epoch=1, best_loss=-1.0)
    assert len(list(fit(inputs))) == 3
    assert max(kept_epochs(path.name for path in tmp_path.iterdir()), default=0) == kept


def test_a_worker_trains_on_the_images_of_both(demo_root: Path, tmp_path: Path) -> None:
    data = {"resize": 24, "crop": 24, "orientation": "apply"}
    config = configured(demo_root, data, fit_on=JOINED, batch_size=32, mode="full")
    dataset = read_dataset(demo_root)
    weights = ResolvedWeights("none")
    device = torch.device("cpu")
    found = training_data(demo_root, dataset.fingerprint(), config, weights, tmp_path, device)
    assert found.train.names == [*dataset.splits["train"].images, *dataset.splits["val"].images]
    assert found.val.names == list(dataset.splits["val"].images)
    assert sum(count.sum() for count in found.label_counts[:1]) == 128
    worker: Any = TrialInputs(config, found, weights, tmp_path).worker
    seen = torch.cat([batch.targets for batch in PixelFeed(config, found, worker).train(1)])
    assert len(seen) == 128
    plain = training_data(
        demo_root, dataset.fingerprint(), configured(demo_root, data, mode="full"), weights, tmp_path, device
    )
    assert len(plain.train) == 96


def test_a_probe_has_features_of_both(dataset: Dataset, tmp_path: Path) -> None:
    config = configured(dataset.root, {"flip": 0.5}, mode="probe")
    train, val = (
        Pack.open_or_build(dataset, split, *config.data.form, cache_dir=tmp_path) for split in ("train", "val")
    )
    weights = ResolvedWeights("none")
    torch.manual_seed(0)
    both = open_features(joined_pack(train, val, tmp_path), config, weights)
    assert len(both.plain) == 330
    assert both.mirrored is not None
    assert TrainingData(joined_pack(train, val, tmp_path), val, dataset.attributes, "f").train_complete is False
    assert np.isfinite(both.plain).all()
