"""How a trial's heads begin: at random, or as the linear probe of the backbone's features.

Fine-tuning from random heads first pulls good features towards bad heads. Kumar et al. 2022 ("Fine-tuning can distort
pretrained features and underperform out-of-distribution", LP-FT) begin with the heads that are best for the features
as they are: a convex problem, solved here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fashion.data.layout import Attribute, split_labels
from fashion.model.classifier import MultiHeadClassifier
from fashion.training.solved.logistic import LogisticHead, mean_loss, minimum
from fashion.training.solved.scale import Scale

# Strengths of the L2 penalty on the weights for standardised features, from strong to weak.
STRENGTHS = (1.0, 0.3, 0.1, 0.03, 0.01)
HELD_OUT = 0.2  # share of the images by which a head's strength is chosen
MOST_IMAGES = 20_000  # more would cost minutes, and tell a linear head little
LEAST_DEVIATION = 0.1  # of the mean feature's
Solve = Callable[[MultiHeadClassifier, NDArray[np.float32] | None, NDArray[np.int64], Sequence[Attribute]], None]


def random_heads(
    model: MultiHeadClassifier,
    features: NDArray[np.float32] | None,
    labels: NDArray[np.int64],
    attributes: Sequence[Attribute],
) -> None:
    """Leave the heads as they were made."""


def probe_heads(
    model: MultiHeadClassifier,
    features: NDArray[np.float32] | None,
    labels: NDArray[np.int64],
    attributes: Sequence[Attribute],
) -> None:
    """Give the model the heads that fit the frozen features (N, F) best; labels (N, columns).

    With `feature_norm: batch` the normalisation gets the features' means and variances, too. A head without a known
    label stays as it is. Raises ValueError without features.
    """
    if features is None:
        raise ValueError("train.init_heads: probe needs the features of the training images (feed.with_cached)")
    rows = np.random.default_rng(0).permutation(len(features))[:MOST_IMAGES]
    these = model.root(torch.from_numpy(np.ascontiguousarray(features[rows])))
    mean, deviation = these.mean(0), these.std(0, correction=0)
    # A feature that is nearly always the same must not get a huge weight: it may come alive in training.
    scale = Scale(mean, deviation.clamp_min(max(LEAST_DEVIATION * float(deviation.mean()), 1e-12)))
    standard, given = scale.standard(these), scale.behind_norm(model)
    pairs = zip(model.heads, split_labels(attributes, labels[rows]), strict=True)
    for layer, (attribute, columns) in pairs:
        targets = torch.from_numpy(np.ascontiguousarray(columns))
        found = solved(standard, targets, len(attribute.classes))
        if found is not None:
            given.give(layer, found)


def solved(features: Tensor, targets: Tensor, classes: int) -> LogisticHead | None:
    """The head of one attribute for standardised features (n, F), its strength chosen by a fifth of the images.

    targets: (n,) class indices of a single-label attribute, (n, classes) 0 and 1 of a multi-label one; negative where
    they are not known. None where no label is.
    """
    known = targets >= 0 if targets.ndim == 1 else (targets >= 0).any(1)
    features, targets = features[known], targets[known]
    if not len(features):
        return None
    held, weights = max(1, round(HELD_OUT * len(features))), torch.ones_like(features[:, 0])
    strength = STRENGTHS[0]
    if len(features) >= 2 * held:
        weight, bias = _zero(classes, features)
        losses = []
        for each in STRENGTHS:
            # Each is the next one's start.
            weight, bias = minimum(features[held:], targets[held:], weights[held:], each, weight, bias, rough=True)
            losses.append(float(mean_loss(features[:held] @ weight.T + bias, targets[:held], weights[:held])))
        strength = STRENGTHS[int(np.argmin(losses))]
    return LogisticHead(*minimum(features, targets, weights, strength, *_zero(classes, features)), strength)


def _zero(classes: int, features: Tensor) -> tuple[Tensor, Tensor]:
    return features.new_zeros(classes, features.shape[1]), features.new_zeros(classes)


# The keys are the words that `TrainConfig.init_heads` allows.
HEAD_INITS: Mapping[str, Solve] = {"random": random_heads, "probe": probe_heads}
