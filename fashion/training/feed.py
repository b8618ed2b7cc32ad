"""Where a trial's batches come from: pixels, augmented on the device, or (`train.mode: probe`) a backbone's
features."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from fashion.config import TrialConfig
from fashion.data.batches import Batch, Epoch, Normalization, Worker, complete, eval_batches, train_batches
from fashion.data.layout import Attribute, split_labels
from fashion.data.pack import Pack
from fashion.model.backbones import row
from fashion.model.classifier import normalization
from fashion.training.evaluate import evaluation_batch_size, with_mirrors
from fashion.training.features import Features

# Images or features, and their mirrors where both are evaluated.
EvalBatch = tuple[Batch, torch.Tensor | None]
# Of training and of validation, each ascending; None for all.
Rows = tuple[NDArray[np.int64] | None, NDArray[np.int64] | None]


@dataclass(frozen=True)
class TrainingData:
    """The two packs that a trial reads, the attributes of their labels and the data set's fingerprint; for a probe the
    features of train and of val, too.

    folds (N,): the fold of each image, where train and val are both all N of them (`data.folds`). train_rows, val_rows:
    those of one fold's model, ascending; None for all rows.
    """

    train: Pack
    val: Pack
    attributes: tuple[Attribute, ...]
    fingerprint: str
    features: tuple[Features, Features] | None = None
    folds: NDArray[np.uint8] | None = None
    train_rows: NDArray[np.int64] | None = None
    val_rows: NDArray[np.int64] | None = None

    def each_model(self) -> list[TrainingData]:
        """What each model of the trial reads: one, or one a fold."""
        if self.folds is None:
            return [self]
        return [
            replace(self, train_rows=np.flatnonzero(self.folds != fold), val_rows=np.flatnonzero(self.folds == fold))
            for fold in range(int(self.folds.max()) + 1)
        ]

    @property
    def training_images(self) -> int:
        return len(self.train) if self.train_rows is None else len(self.train_rows)

    @property
    def class_counts(self) -> tuple[int, ...]:
        return tuple(len(attribute.classes) for attribute in self.attributes)

    @property
    def names(self) -> list[str]:
        return [attribute.name for attribute in self.attributes]

    @property
    def multi_label(self) -> tuple[bool, ...]:
        return tuple(attribute.multi_label for attribute in self.attributes)

    @property
    def train_complete(self) -> bool:
        """Whether no label of the training split is missing."""
        return complete(_labels(self.train))

    @property
    def val_complete(self) -> bool:
        return complete(_labels(self.val))

    @property
    def label_counts(self) -> list[NDArray[np.int64]]:
        """Labelled training images of each class, (classes,) per attribute; of a multi-label one (classes, 2), those
        that don't have it and those that do."""
        return [
            np.stack([np.bincount(column[column >= 0], minlength=2) for column in columns.T])
            if attribute.multi_label
            else np.bincount(columns[columns >= 0], minlength=len(attribute.classes))
            for attribute, columns in split_labels(self.attributes, self._training_labels())
        ]

    def _training_labels(self) -> NDArray[np.int64]:
        labels = _labels(self.train)
        return labels if self.train_rows is None else labels[self.train_rows]


def _labels(pack: Pack) -> NDArray[np.int64]:
    assert pack.labels is not None, "train and val have labels: read_dataset refuses them otherwise"
    return pack.labels


class Feed(Protocol):
    """Batches of this worker's share. Epochs count from 1, an epoch's batches (`first`) from 0."""

    def train(self, epoch: int, first: int = 0) -> Iterator[Batch]: ...

    def validate(self) -> Iterator[EvalBatch]: ...


class PixelFeed:
    """Images from the packs."""

    def __init__(self, config: TrialConfig, data: TrainingData, worker: Worker) -> None:
        self.config, self.data, self.worker = config, data, worker
        self.normalization = Normalization(*normalization(config.data.normalize, row(config.model.backbone)))

    def train(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        wanted = Epoch(epoch, self.config.train.batch_size, self.config.seed, first, self.data.train_rows)
        return train_batches(self.data.train, self.config.data, self.normalization, wanted, self.worker)

    def validate(self) -> Iterator[EvalBatch]:
        data = self.config.data
        size = evaluation_batch_size(self.config.train.batch_size, data.crop, self.worker.device)
        batches = eval_batches(self.data.val, data, self.normalization, size, self.worker, self.data.val_rows)
        return with_mirrors(batches, data.eval_flip)


class FeatureFeed:
    """Features that were computed once. rows: those that are trained on, and those that are validated."""

    def __init__(
        self, config: TrialConfig, features: tuple[Features, Features], worker: Worker, rows: Rows = (None, None)
    ) -> None:
        self.config, self.worker = config, worker
        self.train_features, self.val_features = features
        self.train_rows, self.val_rows = rows

    def train(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        wanted = Epoch(epoch, self.config.train.batch_size, self.config.seed, first, self.train_rows)
        return self.train_features.train_batches(self.config.data.flip, wanted, self.worker)

    def validate(self) -> Iterator[EvalBatch]:
        config = self.config
        size = evaluation_batch_size(config.train.batch_size, config.data.crop, self.worker.device)
        return self.val_features.eval_batches(size, self.worker, self.val_rows)


def make_feed(config: TrialConfig, data: TrainingData, worker: Worker) -> Feed:
    """The feed that `train.mode` asks for; ValueError for a probe without features."""
    if config.train.mode == "full":
        return PixelFeed(config, data, worker)
    if data.features is None:
        raise ValueError("train.mode: probe needs the features of the backbone (features.open_or_compute)")
    return FeatureFeed(config, data.features, worker, (data.train_rows, data.val_rows))
