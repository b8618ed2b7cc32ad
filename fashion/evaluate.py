"""One evaluation for training's validation and for prediction, so that both give the same numbers to the last bit."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from fashion.config import DataConfig
from fashion.data.batches import eval_batches
from fashion.data.pack import Pack
from fashion.metrics import Meter

Normalization = tuple[tuple[float, float, float], tuple[float, float, float]]


def evaluation_batch_size(training_batch_size: int, device: torch.device | str) -> int:
    """Images an evaluation batch. Prediction must take the same: another size may change the last bit of a probability.

    On a GPU twice training's, as without gradients an image takes less memory; on a CPU few, which its caches hold
    (EfficientNet-Lite0 at 192 px: 50 images/s at 8 to 32 a batch, 39 at 64).
    """
    return 16 if torch.device(device).type == "cpu" else max(2 * training_batch_size, 64)


class Evaluation(NamedTuple):
    """meter: exact sums over this rank's labelled images; log_probabilities: per head (n, classes) of this rank's shard."""

    meter: Meter
    log_probabilities: list[torch.Tensor]


@torch.inference_mode()
def log_probabilities(model: nn.Module, images: torch.Tensor, flip: bool) -> tuple[torch.Tensor, ...]:
    """Log-softmax per head, (n, classes) each; with `flip` the mean over the image and its mirror."""
    outputs = tuple(F.log_softmax(logits.float(), dim=1) for logits in model(images))
    if not flip:
        return outputs
    mirrored = model(images.flip(-1))
    return tuple(
        F.log_softmax((a + F.log_softmax(b.float(), dim=1)) / 2, dim=1) for a, b in zip(outputs, mirrored, strict=True)
    )


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    images: Pack | np.ndarray,
    config: DataConfig,
    normalization: Normalization,
    class_counts: tuple[int, ...],
    batch_size: int,
    device: torch.device,
    rank: int = 0,
    world_size: int = 1,
) -> Evaluation:
    """Evaluate this rank's shard (rows rank, rank + world_size, ...) in fp32 and in evaluation mode."""
    was_training = model.training
    model.eval()
    meter = Meter(class_counts, device)
    rows: list[tuple[torch.Tensor, ...]] = []
    mean, std = normalization
    for batch in eval_batches(images, config, mean, std, batch_size, rank, world_size, device):
        outputs = log_probabilities(model, batch.images, config.eval_flip)
        if batch.targets is not None:
            meter.update(outputs, batch.targets)
        rows.append(outputs)
    model.train(was_training)
    heads = (
        [torch.cat(parts) for parts in zip(*rows, strict=True)] if rows else [torch.empty(0, k) for k in class_counts]
    )
    return Evaluation(meter, heads)


def to_probabilities(heads: list[torch.Tensor]) -> list[np.ndarray]:
    """Per head (n, classes) float32 probabilities on the host."""
    return [head.exp().cpu().numpy().astype(np.float32) for head in heads]
