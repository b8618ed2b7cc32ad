"""The classifier that is trained: one backbone, one linear head per attribute."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fashion.config import ModelConfig, TrainConfig
from fashion.errors import Problem, UserError
from fashion.model import backbones
from fashion.model.backbones import HALF, IMAGENET_MEAN, IMAGENET_STD, BackboneRow, Channels, ResolvedWeights
from fashion.model.network import complete_row, make_backbone, stages_of
from fashion.model.weights import load_into


class MultiHeadClassifier(nn.Module):
    """Images (n, 3, H, W) to a tuple of logits, (n, k_h) for head h.

    Each head is a dropout and a linear layer on the pooled features, as in the report ("Model"), but over its own
    classes only: no softmax and no zero padding, which the `report` objective adds itself. With `feature_norm` a batch
    normalisation without parameters comes before the heads (He et al. 2022, appendix A.1).
    """

    def __init__(
        self,
        backbone: nn.Module,
        features: int,
        class_counts: Sequence[int],
        dropout: float,
        feature_norm: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.norm: nn.Module = nn.BatchNorm1d(features, affine=False) if feature_norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.heads = nn.ModuleList([nn.Linear(features, count) for count in class_counts])
        self.class_counts = tuple(class_counts)
        self.feature_count = features
        self.frozen: list[nn.Module] = []

    def features(self, images: Tensor) -> Tensor:
        """Pooled features (n, F) of images (n, 3, H, W)."""
        features: Tensor = self.backbone(images)
        return features

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        features = self.norm(self.features(images))
        return tuple(head(self.dropout(features)) for head in self.heads)

    def without_backbone(self) -> Self:
        """The same model for pooled features (n, F) instead of images; only the heads' own tensors are left."""
        self.backbone = nn.Identity()
        return self

    def without_stages(self, count: int) -> Self:
        """The same model for the maps that the backbone's first `count` stages make, which are taken off."""
        for name, _ in self._first_stages(count):
            self.backbone.set_submodule(name, nn.Identity())
        return self

    def backbone_parameters(self) -> Iterator[nn.Parameter]:
        return self.backbone.parameters()

    def head_parameters(self) -> Iterator[nn.Parameter]:
        return self.heads.parameters()

    def freeze(self, train: TrainConfig) -> None:
        """Freeze what `train` says: the backbone, its first stages, or nothing. (A tail is without them.)"""
        if train.freeze_backbone:
            self.freeze_backbone()
        elif train.freeze_stages and train.mode != "tail":
            self.freeze_stages(train.freeze_stages)
        if train.freeze_bn_stats:
            self.freeze_statistics()

    def freeze_backbone(self) -> None:
        """Train the heads alone. The backbone stays in evaluation mode, so that its batch statistics don't change."""
        self._freeze([self.backbone])

    def freeze_stages(self, count: int) -> None:
        """Keep the first `count` stages of the backbone as they are, batch statistics included. They need no backward
        pass, which saves much of the time on a CPU, where the first stages are the most expensive.

        Raises UserError unless the backbone has more than `count` stages.
        """
        self._freeze([module for _, module in self._first_stages(count)])

    def freeze_statistics(self) -> None:
        """Keep the statistics of the backbone's batch normalisation as they are; its scale and shift are trained."""
        self.frozen = [
            *self.frozen,
            *(part for part in self.backbone.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)),
        ]
        self.train(self.training)

    def _first_stages(self, count: int) -> list[tuple[str, nn.Module]]:
        stages = stages_of(self.backbone)
        if count >= len(stages):
            listed = ", ".join(name for name, _ in stages)
            rule = f"must be less than the number of the backbone's stages ({listed})"
            raise UserError(Problem("train.freeze_stages", rule, str(count)))
        return stages[:count]

    def _freeze(self, modules: list[nn.Module]) -> None:
        self.frozen = modules
        for module in modules:
            module.requires_grad_(False)
            module.eval()

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self


def build_model(
    config: ModelConfig, class_counts: Sequence[int], weights: ResolvedWeights | None = None
) -> MultiHeadClassifier:
    """The model of a trial, in training mode, on the CPU.

    `weights` is what `resolve_weights` found; None leaves random values, which a checkpoint will overwrite. Random
    values come from torch's global generator, which the caller seeds.
    Raises UserError for an unknown backbone, WeightsError when the weights can't be read or don't fit.
    """
    row = backbones.row(config.backbone)
    backbone, features = make_backbone(row, config.drop_path)
    if weights is not None and weights.path is not None:
        load_into(backbone, row, weights)
    feature_norm = FEATURE_NORMS[config.feature_norm]
    return MultiHeadClassifier(backbone, features, class_counts, config.dropout, feature_norm)


# The keys are the words that `ModelConfig.feature_norm` allows: whether a batch normalisation comes before the heads.
FEATURE_NORMS: Mapping[str, bool] = {"none": False, "batch": True}


def prior_biases(model: MultiHeadClassifier, label_counts: Sequence[NDArray[Any]]) -> None:
    """Let the heads begin with what is known without looking at an image: each bias is the logarithm of how often its
    class occurs, of a multi-label head its odds (Lin et al. 2017, Focal Loss for Dense Object Detection, 3.3).

    label_counts: for each head (classes,) training images of each class, of a multi-label head (classes, 2), those
    that don't have it and those that do. One of each is added, so that a class without images has a finite bias.
    """
    for head, counts in zip(model.heads, label_counts, strict=True):
        assert isinstance(head, nn.Linear), "heads are linear"
        shares = np.log(np.asarray(counts, float) + 1)
        bias = shares[:, 1] - shares[:, 0] if shares.ndim == 2 else shares - np.log(np.exp(shares).sum())
        with torch.no_grad():
            head.bias.copy_(torch.from_numpy(bias))


def random_biases(model: MultiHeadClassifier, label_counts: Sequence[NDArray[Any]]) -> None:
    """Leave the heads as they were made."""


# The keys are the words that `TrainConfig.init_biases` allows.
BIAS_INITS: Mapping[str, Callable[[MultiHeadClassifier, Sequence[NDArray[Any]]], None]] = {
    "random": random_biases,
    "prior": prior_biases,
}


def normalization(normalize: str, row: BackboneRow) -> tuple[Channels, Channels]:
    """Channel means and standard deviations for pixels in [0, 1], by the name that `data.normalize` gives."""
    return NORMALIZATIONS[normalize](row)


def _own_statistics(row: BackboneRow) -> tuple[Channels, Channels]:
    row = complete_row(row)
    return row.mean, row.std


# The keys are the words that `DataConfig.normalize` allows.
NORMALIZATIONS: Mapping[str, Callable[[BackboneRow], tuple[Channels, Channels]]] = {
    "weights": _own_statistics,
    "imagenet": lambda row: (IMAGENET_MEAN, IMAGENET_STD),
    "half": lambda row: (HALF, HALF),
}
