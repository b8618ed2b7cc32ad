"""Where a trial's batches come from: pixels, augmented on the device, or what a frozen backbone (`train.mode: probe`)
or its first stages (`tail`) have made of them once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from fashion.config.trial import TrialConfig
from fashion.data.batches import Batch, Epoch, Normalization, Worker, complete, eval_batches, train_batches
from fashion.data.layout import Attribute, split_labels
from fashion.data.pack import Pack
from fashion.data.sampling import sampling_weights
from fashion.data.views import views_of
from fashion.model.backbones import row
from fashion.model.classifier import normalization
from fashion.model.pretrained.resolved_weights import ResolvedWeights
from fashion.training.evaluate import evaluation_batch_size
from fashion.training.features import Features, open_features, open_or_compute
from fashion.training.tail.batches import Maps
from fashion.training.tail.maps import open_maps

# What a trial sees in place of images.
Cached = Features | Maps
Opener = Callable[..., Cached]
# How a mode that sees each image once opens, or computes, what it trains on. `full` is no row: it sees pixels.
OPENERS: Mapping[str, Opener] = {"probe": open_features, "tail": open_maps}


@dataclass(frozen=True)
class TrainingData:
    """The two packs that a trial reads, the attributes of their labels and the data set's fingerprint; for a
    probe or a tail what it sees of train and of val, too. head_features: (N, F) of the training images, where the heads
    begin as their linear probe.

    folds (N,): the fold of each image, where train and val are both all N of them (`data.folds`). train_rows, val_rows:
    those of one fold's model, ascending; None for all rows. soft_labels (N, all classes): a teacher's probabilities of
    the training pack's images, one attribute's columns beside the other's.
    """

    train: Pack
    val: Pack
    attributes: tuple[Attribute, ...]
    fingerprint: str
    cached: tuple[Cached, Cached] | None = None
    head_features: NDArray[np.float32] | None = None
    folds: NDArray[np.uint8] | None = None
    train_rows: NDArray[np.int64] | None = None
    val_rows: NDArray[np.int64] | None = None
    soft_labels: NDArray[np.float32] | None = None

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
    def train_labels(self) -> NDArray[np.int64]:
        """(n, columns) of the images that are trained on."""
        labels = _labels(self.train)
        return labels if self.train_rows is None else labels[self.train_rows]

    @property
    def train_features(self) -> NDArray[np.float32] | None:
        """(n, F) of the images that are trained on, where the heads begin as their linear probe."""
        found = self.head_features
        return found if found is None or self.train_rows is None else found[self.train_rows]

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
            for attribute, columns in split_labels(self.attributes, self.train_labels)
        ]


def _labels(pack: Pack) -> NDArray[np.int64]:
    assert pack.labels is not None, "train and val have labels: read_dataset refuses them otherwise"
    return pack.labels


class Feed(Protocol):
    """Batches of this worker's share. Epochs count from 1, an epoch's batches (`first`) from 0."""

    def train(self, epoch: int, first: int = 0) -> Iterator[Batch]: ...

    def validate(self) -> Iterator[Batch]: ...


class PixelFeed:
    """Images from the packs."""

    def __init__(self, config: TrialConfig, data: TrainingData, worker: Worker) -> None:
        self.config, self.data, self.worker = config, data, worker
        self.epochs = Epochs(config, data)
        self.normalization = Normalization(*normalization(config.data.normalize, row(config.model.backbone)))

    def train(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        data, wanted = self.config.data, self.epochs.at(epoch, first)
        side = data.side_in(epoch, self.config.train.epochs)
        return train_batches(self.data.train, data, self.normalization, wanted, self.worker, side)

    def validate(self) -> Iterator[Batch]:
        data = self.config.data
        size = evaluation_batch_size(self.config.train.batch_size, data.crop, self.worker.device)
        rows, views = self.data.val_rows, views_of(data)
        return eval_batches(self.data.val, data, self.normalization, size, self.worker, rows, views)


class CachedFeed:
    """Features or maps that were computed once; ValueError for data without."""

    def __init__(self, config: TrialConfig, data: TrainingData, worker: Worker) -> None:
        if data.cached is None:
            raise ValueError(f"train.mode: {config.train.mode} needs what its frozen stages make of images (OPENERS)")
        self.config, self.data, self.worker = config, data, worker
        self.epochs = Epochs(config, data)
        self.of_train, self.of_val = data.cached

    def train(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        return self.of_train.train_batches(self.config.data.flip, self.epochs.at(epoch, first), self.worker)

    def validate(self) -> Iterator[Batch]:
        config = self.config
        size = evaluation_batch_size(config.train.batch_size, config.data.crop, self.worker.device)
        return self.of_val.eval_batches(size, self.worker, self.data.val_rows)


class Epochs:
    """In which order a trial's epochs show the training images."""

    def __init__(self, config: TrialConfig, data: TrainingData) -> None:
        self.config, self.among = config, data.train_rows
        power = config.train.balanced_sampling
        heads = [columns for _, columns in split_labels(data.attributes, data.train_labels)] if power else []
        self.weights = sampling_weights(heads, power) if power else None

    def at(self, epoch: int, first: int) -> Epoch:
        train = self.config.train
        return Epoch(epoch, train.batch_size, self.config.seed, first, self.among, self.weights)


def make_feed(config: TrialConfig, data: TrainingData, worker: Worker) -> Feed:
    """The feed that `train.mode` asks for; ValueError for a probe or a tail without what it trains on."""
    return PixelFeed(config, data, worker) if config.train.mode == "full" else CachedFeed(config, data, worker)


def with_cached(
    data: TrainingData, config: TrialConfig, weights: ResolvedWeights, device: torch.device | str = "cpu"
) -> TrainingData:
    """The same with what a trial of `config` sees in place of images, and what its heads begin with, if anything;
    computed where it is missing."""
    if config.train.init_heads == "probe":
        data = replace(data, head_features=open_or_compute(data.train, config, weights, False, device, split="train"))
    if config.train.mode == "full":
        return data
    opened = OPENERS[config.train.mode]
    train = opened(data.train, config, weights, device, split="train")
    return replace(data, cached=(train, opened(data.val, config, weights, device, split="val")))
