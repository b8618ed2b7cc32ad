"""Prediction with a promoted model.

Pixels, batches and arithmetic are those of validation in training, so predicting the validation split gives exactly the
val_accuracy that the trial recorded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fashion.data.batches import Normalization, Worker, eval_batches
from fashion.data.lists import MISSING
from fashion.data.pack import Pack
from fashion.data.views import views_of
from fashion.model.backbones import row
from fashion.model.classifier import normalization
from fashion.prediction.promoted import Promoted
from fashion.training.evaluate import evaluation_batch_size, on_host, probabilities, scores


@dataclass(frozen=True, eq=False)
class Predictions:
    """The predictions for N images, in the order of `names`.

    classes: (N, columns) int64, as a data set's labels: the index of the most probable class, and of a multi-label head
    1 for each class whose probability is above 0.5, else 0. probabilities: (N, classes) float32 for each head.
    """

    names: tuple[str, ...]
    classes: NDArray[np.int64]
    probabilities: tuple[NDArray[np.float32], ...]


def predict(
    model: nn.Module,
    promoted: Promoted,
    images: Pack | NDArray[np.uint8],
    names: Sequence[str] | None = None,
    batch_size: int | None = None,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Predictions:
    """Predict a pack, or an array (N, S, S, 3) of RGB bytes with S = config.data.resize, in order and in fp32.

    names: one for each image; the pack's own by default, or row numbers for an array.
    batch_size: that of validation in training by default. A smaller one needs less memory, but the last bit of a
    probability may then differ.
    progress: called with the number of images done and their total.

    Raises ValueError when the number of names is not the number of images.
    """
    config = promoted.config
    size = batch_size or evaluation_batch_size(config.train.batch_size, config.data.crop, device)
    total = len(images)
    listed = (
        tuple(names)
        if names is not None
        else tuple(images.names if isinstance(images, Pack) else map(str, range(total)))
    )
    if len(listed) != total:
        raise ValueError(f"{len(listed)} names for {total} images")
    channels = Normalization(*normalization(config.data.normalize, row(config.model.backbone)))
    model.eval()
    # Classes from the log-probabilities, as validation counts them: exp may round two close ones to one value.
    multi = promoted.multi_label
    classes = [np.empty((0, sum(attribute.columns for attribute in promoted.attributes)), np.int64)]
    found = [[np.empty((0, count), np.float32) for count in promoted.class_counts]]
    done = 0
    alone, views = Worker(device=torch.device(device)), views_of(config.data)
    batches = eval_batches(images, config.data, channels, size, alone, views=views)
    outputs = (scores(model, batch, multi) for batch in batches)
    for best, *heads in on_host((_decided(each, multi), *probabilities(each, multi)) for each in outputs):
        classes.append(best)
        found.append(heads)
        done += len(best)
        if progress is not None:
            progress(done, total)
    return Predictions(
        listed, np.concatenate(classes), tuple(np.concatenate(parts) for parts in zip(*found, strict=True))
    )


def _decided(heads: Sequence[torch.Tensor], multi_label: Sequence[bool]) -> torch.Tensor:
    """`Predictions.classes` of the scores of each head."""
    pairs = zip(heads, multi_label, strict=True)
    return torch.cat([(h.sigmoid() > 0.5).long() if multi else h.argmax(1, keepdim=True) for h, multi in pairs], dim=1)


def accuracy(predictions: Predictions, labels: NDArray[np.int64]) -> float:
    """The share of labels that are right, of all that are known, as `val_accuracy` counts it; NaN where none is.
    labels: (N, columns) int64.

    Raises ValueError when the shapes differ.
    """
    if labels.shape != predictions.classes.shape:
        raise ValueError(f"labels {labels.shape} for predictions {predictions.classes.shape}")
    known = int((labels != MISSING).sum())
    return int((predictions.classes == labels).sum()) / known if known else math.nan
