"""A network at an image size and a batch size, the images to train it on, and the threads to do it with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from fashion.config.model import ModelConfig
from fashion.config.trial import TrialConfig
from fashion.data.layout import Dataset, Split
from fashion.data.pack import Pack
from fashion.model.backbones import row
from fashion.training.feed import TrainingData


@dataclass(frozen=True)
class Case:
    """`resize` and `side` (of the training input) in pixels, `batch` in images."""

    backbone: str
    resize: int
    side: int
    batch: int

    def __str__(self) -> str:
        return f"{self.backbone} {self.side} px, batch {self.batch}"

    @property
    def model(self) -> ModelConfig:
        return self.config().model

    def config(self, epochs: int = 1, compiled: str = "none", weights: str = "none") -> TrialConfig:
        """The report's recipe at a learning rate that random weights stand."""
        found = row(self.backbone)
        # The stochastic depth that torchvision's EfficientNets have unless told otherwise, so the report's had it.
        drop_path = 0.2 if found.source == "torchvision" and found.drop_path else 0.0
        return TrialConfig.model_validate(
            {
                "data": {"root": ".", "resize": self.resize, "crop": self.side},
                "model": {"backbone": self.backbone, "weights": weights, "dropout": 0.2, "drop_path": drop_path},
                "train": {"epochs": epochs, "batch_size": self.batch, "lr": 0.01, "compile": compiled},
            }
        )


def first_images(dataset: Dataset, case: Case, train: int, val: int, cache: Path) -> TrainingData:
    """The first images of both splits, as many as there are, in caches in the folder `cache`."""
    counts = {"train": train, "val": val}
    splits = {}
    for name, count in counts.items():
        images, labels = dataset.splits[name].images, dataset.labels(name)
        splits[name] = Split(name, images[:count], labels[:count])
    few = Dataset(dataset.root, dataset.attributes, splits)
    packs = [Pack.open_or_build(few, name, case.resize, cache_dir=cache) for name in counts]
    return TrainingData(packs[0], packs[1], few.attributes, few.fingerprint())


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch compute on `count` threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
