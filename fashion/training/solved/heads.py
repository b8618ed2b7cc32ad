"""`train.optimizer: lbfgs`: a probe's heads are solved on the features of all training images at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fashion.config.trial import TrialConfig
from fashion.data.batches import Batch
from fashion.data.layout import Attribute, split_labels
from fashion.model.classifier import MultiHeadClassifier
from fashion.training.features import Features
from fashion.training.micro_batches import Criterion
from fashion.training.solved.logistic import FOLDS, solve_head
from fashion.training.solved.scale import Scale


def solve_heads(
    model: MultiHeadClassifier, features: Features, attributes: Sequence[Attribute], config: TrialConfig
) -> str:
    """Give the model the heads that are best for the features, each with an L2 strength of its own. Returns the
    strengths in words.

    Where images are flipped, an image and its mirror are two rows, which count as often as training would see them.
    With `feature_norm: batch` the normalisation gets the features' means and variances. A head without a known label
    stays as it is. Every worker of a trial solves all of it, to the same numbers.
    """
    rows, weights = _rows(features, config.data.flip)
    device = next(model.head_parameters()).device
    rows, weights = model.root(rows.to(device)), weights.to(device)
    total = weights.sum()
    mean = (rows * weights[:, None]).sum(0) / total
    variance = ((rows - mean).square() * weights[:, None]).sum(0) / total
    scale = Scale(mean, variance.sqrt().clamp_min(1e-6))  # of features that never vary, too
    standard, given = scale.standard(rows), scale.behind_norm(model)
    images, copies = len(features.plain), len(rows) // len(features.plain)
    order = torch.randperm(images, generator=torch.Generator().manual_seed(config.seed))
    fold = (order % FOLDS).repeat(copies).to(device)
    told = []
    for layer, (attribute, columns) in zip(model.heads, split_labels(attributes, features.labels), strict=True):
        targets = torch.from_numpy(columns.copy()).repeat(copies, *([1] * (columns.ndim - 1))).to(device)
        found = solve_head(standard, targets, len(attribute.classes), fold, weights)
        if found is None:
            continue
        given.give(layer, found)
        told.append(f"{attribute.name} {found.strength:.3g}")
    return f"L2 strengths by {FOLDS} folds of the training images: {', '.join(told)}"


def measured(model: MultiHeadClassifier, criterion: Criterion, batch: Batch) -> tuple[tuple[Tensor, ...], Tensor]:
    """The logits (n, classes) of solved heads and the losses (n,) of a batch of training features: without a step, and
    without dropout."""
    model.eval()
    with torch.no_grad():
        logits: tuple[Tensor, ...] = model(batch.images)
        return logits, criterion(logits, batch.targets)


def _rows(features: Features, flip: float) -> tuple[Tensor, Tensor]:
    """The features (n, F) that training would see, and how often (n,)."""
    plain = torch.from_numpy(features.plain.copy())
    if not flip or features.mirrored is None:
        return plain, torch.ones(len(plain))
    both = torch.cat([plain, torch.from_numpy(features.mirrored.copy())])
    return both, torch.cat([torch.full((len(plain),), 1 - flip), torch.full((len(plain),), flip)])
