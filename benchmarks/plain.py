"""What a user writes without this project: the report's data pipeline and loop in plain torch, one trial at a time.

The report's: PIL images in a DataLoader, torchvision's transforms, fp32, NCHW, one optimiser step a batch. The loss is
the mean over the heads of plain cross entropy, validated over whole splits, so that val_loss compares with ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torchvision
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from fashion.data.layout import Split, read_dataset

# The report took 4 for one training on one GPU; of two cores, with two trials at once, four would be eight processes.
LOADER_PROCESSES = 2
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Settings:
    """A trial's configuration, as every contender gets it. `side` is the images' in pixels."""

    number: int
    lr: float
    weight_decay: float
    dropout: float
    batch_size: int
    epochs: int
    side: int


class Photos(Dataset[tuple[Tensor, Tensor]]):
    """The images of a split, resized to `side` and cropped to `crop` (by default not), decoded anew each time, with
    their labels (heads,), or (0,) where it has none."""

    def __init__(self, root: Path, split: Split, side: int, train: bool, crop: int | None = None) -> None:
        self.root, self.images = root, split.images
        self.labels = torch.zeros(len(split), 0) if split.labels is None else torch.tensor(split.labels)
        steps: list[Any] = [
            transforms.Resize((side, side), transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(crop or side),
            *([transforms.RandomHorizontalFlip(0.5)] if train else []),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
        self.transform = transforms.Compose(steps)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        with Image.open(self.root / self.images[index]) as image:
            return self.transform(image.convert("RGB")), self.labels[index]


class Network(nn.Module):
    """ResNet-18 from random weights with a dropout and a linear layer for each head."""

    def __init__(self, class_counts: tuple[int, ...], dropout: float) -> None:
        super().__init__()
        self.backbone = torchvision.models.resnet18(weights=None)
        features = self.backbone.fc.in_features
        self.backbone.fc = nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.heads = nn.ModuleList([nn.Linear(features, count) for count in class_counts])

    def forward(self, images: Tensor) -> list[Tensor]:
        features = self.backbone(images)
        return [head(self.dropout(features)) for head in self.heads]


def head_loss(outputs: list[Tensor], targets: Tensor) -> Tensor:
    """The mean over the heads of the batch's mean cross entropy."""
    losses = [F.cross_entropy(output, targets[:, head]) for head, output in enumerate(outputs)]
    return torch.stack(losses).mean()


def epochs(settings: Settings, root: Path) -> Iterator[tuple[int, float, nn.Module]]:
    """Train a trial; after each epoch its number from 1, its val_loss and the model."""
    dataset = read_dataset(root)
    torch.manual_seed(settings.number)
    train, val = (
        DataLoader(
            Photos(root, dataset.splits[name], settings.side, name == "train"), settings.batch_size,
            shuffle=name == "train", num_workers=LOADER_PROCESSES, persistent_workers=True,
        )
        for name in ("train", "val")
    )  # fmt: skip
    model = Network(dataset.class_counts, settings.dropout)
    optimizer = torch.optim.SGD(model.parameters(), settings.lr, momentum=0.9, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.epochs * len(train))
    for epoch in range(1, settings.epochs + 1):
        model.train()
        for images, targets in train:
            optimizer.zero_grad()
            head_loss(model(images), targets).backward()
            optimizer.step()
            schedule.step()
        yield epoch, validate(model, val), model


@torch.no_grad()
def validate(model: nn.Module, loader: DataLoader[tuple[Tensor, Tensor]]) -> float:
    """val_loss: summed over the images and divided by their number."""
    model.eval()
    total = count = 0.0
    for images, targets in loader:
        total += head_loss(model(images), targets).item() * len(images)
        count += len(images)
    return total / count
