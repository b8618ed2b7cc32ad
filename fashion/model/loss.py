"""Training objectives over several heads. Each gives one value per sample: the mean over heads.

`cross_entropy` is the proper objective; `report` is the report's padded double softmax, kept for comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fashion.config import TrainConfig

HeadLoss = Callable[[Tensor, Tensor, Tensor | None], Tensor]  # logits (n, k), targets (n,), class weights (k,) -> (n,)
# The keys are the words that `TrainConfig.class_weighting` allows; the values are powers of a class's 1/count.
CLASS_WEIGHTINGS: Mapping[str, float] = {"none": 0.0, "inverse": 1.0, "sqrt_inverse": 0.5}


def cross_entropy(logits: Sequence[Tensor], targets: Tensor) -> Tensor:
    """Plain cross entropy per sample, mean over heads: what `val_loss` averages, whatever was trained.

    `logits` holds (n, k_h) per head, `targets` is (n, H) int64; the result is (n,) float32.
    """
    return torch.stack([_plain(head, target, None) for head, target in _pairs(logits, targets)]).mean(0)


def report_loss(logits: Sequence[Tensor], targets: Tensor, pad_to: int) -> Tensor:
    """The report's loss per sample, mean over heads: softmax, zero-pad to `pad_to` classes, cross entropy of that.

    Cross entropy applies softmax again. The value of a head therefore lies between log(e + pad_to - 1) - 1 and one more
    (1.16542 to 2.16542 for 7), and its gradient vanishes for samples that are confidently wrong, too. Shapes as in
    `cross_entropy`.
    """
    return torch.stack([_padded(head, target, None, pad_to) for head, target in _pairs(logits, targets)]).mean(0)


def class_weights(counts: np.ndarray, weighting: str) -> np.ndarray:
    """Weights (k,) float64 of a head's classes by `counts`, their numbers of training images.

    A weight is a power of 1/count, scaled so that the mean weight over all images is 1: the loss keeps its size, and so
    does the learning rate that suits it. A class without images weighs 0. With `none` all weights are 1.
    """
    counts = np.asarray(counts, dtype=np.float64)
    power = CLASS_WEIGHTINGS[weighting]
    if power == 0.0:
        return np.ones_like(counts)
    raw = np.where(counts > 0, np.maximum(counts, 1.0) ** -power, 0.0)
    weights: np.ndarray = raw / ((raw * counts).sum() / counts.sum())
    return weights


class MultiHeadLoss:
    """A training objective: called with logits and targets as `cross_entropy` is, it gives (n,) float32."""

    def __init__(self, head_loss: HeadLoss, weights: Sequence[Tensor] | None) -> None:
        self._head_loss = head_loss
        self._weights = list(weights) if weights is not None else None

    def __call__(self, logits: Sequence[Tensor], targets: Tensor) -> Tensor:
        if self._weights is not None and self._weights[0].device != targets.device:
            self._weights = [weight.to(targets.device) for weight in self._weights]
        weights: Sequence[Tensor | None] = self._weights or [None] * len(logits)
        pairs = zip(_pairs(logits, targets), weights, strict=True)
        return torch.stack([self._head_loss(head, target, weight) for (head, target), weight in pairs]).mean(0)


def build_loss(
    train: TrainConfig, class_counts: Sequence[int], train_label_counts: Sequence[np.ndarray] | None = None
) -> MultiHeadLoss:
    """The objective that `train` asks for.

    `train_label_counts` holds for each head (k_h,) numbers of training images of its classes. Only class weighting
    needs it; raises ValueError if it is then missing or of other shapes.
    """
    weights: list[Tensor] | None = None
    if CLASS_WEIGHTINGS[train.class_weighting]:
        if train_label_counts is None or [len(c) for c in train_label_counts] != list(class_counts):
            raise ValueError("class weighting needs train_label_counts, one count per class of every head")
        weights = [
            torch.tensor(class_weights(counts, train.class_weighting), dtype=torch.float32)
            for counts in train_label_counts
        ]
    return MultiHeadLoss(OBJECTIVES[train.loss](train, class_counts), weights)


def _pairs(logits: Sequence[Tensor], targets: Tensor) -> list[tuple[Tensor, Tensor]]:
    # Autocast hands over bf16 logits; every loss is computed in float32.
    return list(zip((head.float() for head in logits), targets.unbind(1), strict=True))


def _plain(logits: Tensor, target: Tensor, weight: Tensor | None, smoothing: float = 0.0) -> Tensor:
    return F.cross_entropy(logits, target, weight=weight, reduction="none", label_smoothing=smoothing)


def _padded(logits: Tensor, target: Tensor, weight: Tensor | None, pad_to: int) -> Tensor:
    missing = pad_to - logits.shape[1]
    padded = F.pad(logits.softmax(1), (0, missing))
    return F.cross_entropy(
        padded, target, weight=None if weight is None else F.pad(weight, (0, missing)), reduction="none"
    )


def _focal(logits: Tensor, target: Tensor, weight: Tensor | None, gamma: float, smoothing: float) -> Tensor:
    """Focal loss (Lin et al. 2017), sum over classes of q (1 - p)^gamma (-log p), q the smoothed target.

    gamma 0 gives cross entropy with the same smoothing and weights.
    """
    log_p = logits.log_softmax(1)
    # A probability of exactly 1 would give 0 * infinity in the gradient when gamma < 1.
    focus = (1 - log_p.exp()).clamp_min(1e-6) ** gamma
    terms = -log_p * focus
    if weight is not None:
        terms = terms * weight
    hard = terms.gather(1, target[:, None])[:, 0]
    return hard if smoothing == 0 else (1 - smoothing) * hard + smoothing * terms.mean(1)


# The keys are the words that `TrainConfig.loss` allows; a row makes the loss of one head from the settings and the
# numbers of classes of all heads.
Objective = Callable[[TrainConfig, Sequence[int]], HeadLoss]
OBJECTIVES: Mapping[str, Objective] = {
    "cross_entropy": lambda train, counts: partial(_plain, smoothing=train.label_smoothing),
    "focal": lambda train, counts: partial(_focal, gamma=train.focal_gamma, smoothing=train.label_smoothing),
    "report": lambda train, counts: partial(_padded, pad_to=max(counts)),
}
