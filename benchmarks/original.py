"""The report's own model, training step and prediction loop ("Model", "Loss functions"): fp32, NCHW, nothing tuned."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Step = Callable[[Tensor, Tensor], None]


class ReportModel(nn.Module):
    """Images (n, 3, H, W) to probabilities (n, most, heads), `most` being the classes of the largest head.

    Each head is a dropout, a linear layer and a softmax, filled up with zeros; then all are joined (the report, Figure
    3).
    """

    def __init__(self, backbone: nn.Module, features: int, class_counts: Sequence[int], dropout: float = 0.2) -> None:
        super().__init__()
        self.backbone, self.most = backbone, max(class_counts)
        self.dropout = nn.Dropout(dropout)
        self.heads = nn.ModuleList([nn.Linear(features, count) for count in class_counts])

    def forward(self, images: Tensor) -> Tensor:
        features = self.backbone(images)
        outputs = [head(self.dropout(features)).softmax(1) for head in self.heads]
        return torch.stack([F.pad(output, (0, self.most - output.shape[1])) for output in outputs], dim=2)


def training_step(model: ReportModel, device: torch.device) -> Step:
    """The body of the report's loop: a step on images and targets (n, heads), whose loss and hits are read at once."""
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-5)
    model.train()
    sums = {"loss": 0.0, "right": 0.0}

    def step(images: Tensor, targets: Tensor) -> None:
        with as_torch_comes(device):
            images, targets = images.to(device), targets.to(device)
            optimizer.zero_grad()
            outputs = model(images)
            loss = criterion(outputs, targets)
            loss.backward()
            optimizer.step()
            sums["loss"] += loss.item()
            sums["right"] += (outputs.argmax(1) == targets).sum().item()

    return step


@torch.no_grad()
def predicted(model: ReportModel, batches: Iterable[tuple[Tensor, Tensor]]) -> list[list[int]]:
    """The report's prediction: the class indices of each image."""
    model.eval()
    rows: list[list[int]] = []
    for images, _ in batches:
        rows += model(images).argmax(1).tolist()
    return rows


@contextmanager
def as_torch_comes(device: torch.device) -> Iterator[None]:
    """torch's settings as they are unless told otherwise: on a GPU our loop sets them for the whole process."""
    if device.type != "cuda":
        yield
        return
    precision, tried = torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.benchmark = tried
