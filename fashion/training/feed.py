"""Where a trial's batches come from: pixels, augmented on the device, or (`train.mode: probe`) a backbone's features."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from fashion.config import TrialConfig
from fashion.data.batches import Batch, eval_batches, train_batches
from fashion.data.layout import Attribute
from fashion.data.pack import Pack
from fashion.model.backbones import row
from fashion.model.classifier import normalization
from fashion.training.evaluate import evaluation_batch_size, with_mirrors
from fashion.training.features import Features

CPU = torch.device("cpu")

# Images or features, and their mirrors where both are evaluated.
EvalBatch = tuple[Batch, torch.Tensor | None]


@dataclass(frozen=True)
class Worker:
    """Where this worker stands: its rank among `world_size` and its device."""

    rank: int = 0
    world_size: int = 1
    device: torch.device = CPU


@dataclass(frozen=True)
class TrainingData:
    """The two packs a trial reads, what names them, and for a probe their features, of train and of val."""

    train: Pack
    val: Pack
    attributes: tuple[Attribute, ...]
    fingerprint: str
    features: tuple[Features, Features] | None = None

    @property
    def class_counts(self) -> tuple[int, ...]:
        return tuple(len(attribute.classes) for attribute in self.attributes)

    @property
    def names(self) -> list[str]:
        return [attribute.name for attribute in self.attributes]

    @property
    def label_counts(self) -> list[NDArray[np.int64]]:
        """Training images of each class, per attribute."""
        assert self.train.labels is not None, "the training split has labels: read_dataset refuses it otherwise"
        return [np.bincount(self.train.labels[:, head], minlength=k) for head, k in enumerate(self.class_counts)]


class Feed(Protocol):
    """Batches of this worker's share; the epochs count from 1, an epoch's batches (`first`) from 0."""

    def train(self, epoch: int, first: int = 0) -> Iterator[Batch]: ...

    def validate(self) -> Iterator[EvalBatch]: ...


class PixelFeed:
    """Images from the packs."""

    def __init__(self, config: TrialConfig, data: TrainingData, worker: Worker) -> None:
        self.config, self.data, self.worker = config, data, worker
        self.mean, self.std = normalization(config.data.normalize, row(config.model.backbone))

    def train(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        config, worker = self.config, self.worker
        return train_batches(
            self.data.train, config.data, self.mean, self.std, config.train.batch_size, config.seed, epoch,
            worker.rank, worker.world_size, worker.device, first=first,
        )  # fmt: skip

    def validate(self) -> Iterator[EvalBatch]:
        config, worker = self.config, self.worker
        size = evaluation_batch_size(config.train.batch_size, config.data.crop, worker.device)
        batches = eval_batches(
            self.data.val, config.data, self.mean, self.std, size, worker.rank, worker.world_size, worker.device
        )
        return with_mirrors(batches, config.data.eval_flip)


class FeatureFeed:
    """Features that were computed once."""

    def __init__(self, config: TrialConfig, features: tuple[Features, Features], worker: Worker) -> None:
        self.config, self.worker = config, worker
        self.train_features, self.val_features = features

    def train(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        config, worker = self.config, self.worker
        return self.train_features.train_batches(
            config.data.flip, config.train.batch_size, config.seed, epoch, worker.rank, worker.world_size, worker.device,
            first,
        )  # fmt: skip

    def validate(self) -> Iterator[EvalBatch]:
        config, worker = self.config, self.worker
        size = evaluation_batch_size(config.train.batch_size, config.data.crop, worker.device)
        return self.val_features.eval_batches(size, worker.rank, worker.world_size, worker.device)


def make_feed(config: TrialConfig, data: TrainingData, worker: Worker) -> Feed:
    """The feed that `train.mode` asks for; ValueError for a probe without features."""
    if config.train.mode == "full":
        return PixelFeed(config, data, worker)
    if data.features is None:
        raise ValueError("train.mode: probe needs the features of the backbone (features.open_or_compute)")
    return FeatureFeed(config, data.features, worker)
