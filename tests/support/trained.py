"""A small trial's configuration and data, and a real training of it."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any, cast

from fashion.config.trial import TrialConfig
from fashion.data.layout import read_dataset
from fashion.data.pack import Pack
from fashion.model.pretrained.resolved_weights import ResolvedWeights
from fashion.record.trial import EpochReport
from fashion.training.feed import TrainingData
from fashion.training.loop import TrialInputs, fit

NONE = ResolvedWeights("none")


def config(root: Path, **train: Any) -> TrialConfig:
    return TrialConfig.model_validate(
        {
            "data": {"root": str(root), "resize": 36, "crop": 32, "crop_mode": "random"},
            "model": {"backbone": "tiny", "weights": "none", "dropout": 0.2},
            "train": {"epochs": 3, "batch_size": 32, **train},
            "seed": 7,
        }
    )


def packs(root: Path, config: TrialConfig) -> TrainingData:
    dataset = read_dataset(root)
    train, val = (Pack.open_or_build(dataset, split, config.data.resize) for split in ("train", "val"))
    return TrainingData(train, val, dataset.attributes, dataset.fingerprint())


def training(inputs: TrialInputs) -> Generator[EpochReport, None, None]:
    """`fit` as the generator that it is, for who closes it."""
    return cast(Generator[EpochReport, None, None], fit(inputs))
