"""The classifier that is trained: one backbone, one linear head per attribute."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fashion.config.model import ModelConfig
from fashion.config.train import TrainConfig
from fashion.errors import Problem, UserError
from fashion.model import backbones
from fashion.model.backbones import HALF, IMAGENET_MEAN, IMAGENET_STD, BackboneRow, Channels
from fashion.model.loss import log_priors
from fashion.model.network import complete_row, make_backbone, stages_of, take_off
from fashion.model.parts.composed import SignedRoot
from fashion.model.parts.stage_features import with_stage_features
from fashion.model.pretrained.resolved_weights import ResolvedWeights
from fashion.model.pretrained.weights import load_into


class MultiHeadClassifier(nn.Module):
    """Images (n, 3, H, W) to a tuple of logits, (n, k_h) for head h.

    Each head is a dropout and a linear layer on the pooled features, as in the report ("Model"), but over its own
    classes only: no softmax and no zero padding, which the `report` objective adds itself. With `feature_root` the
    features' signed roots, and with `feature_norm` a batch normalisation without parameters (He et al. 2022, appendix
    A.1), come before the heads.
    """

    def __init__(
        self,
        backbone: nn.Module,
        features: int,
        class_counts: Sequence[int],
        dropout: float,
        feature_norm: bool = False,
        feature_root: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.root: nn.Module = SignedRoot() if feature_root else nn.Identity()
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
        features = self.norm(self.root(self.features(images)))
        return tuple(head(self.dropout(features)) for head in self.heads)

    def without_backbone(self) -> Self:
        """The same model for pooled features (n, F) instead of images; only the heads' own tensors are left."""
        self.backbone = nn.Identity()
        return self

    def without_stages(self, count: int) -> Self:
        """The same model for the maps that the backbone's first `count` stages make, which are taken off."""
        take_off(self.backbone, self._first_stages(count))
        return self

    def backbone_parameters(self) -> Iterator[nn.Parameter]:
        return self.backbone.parameters()

    def backbone_layers(self) -> list[list[nn.Parameter]]:
        """The backbone's parameters by stage, from the input on; those that are of no stage are with the first, since
        they are embeddings of what comes in."""
        layers = [list(module.parameters()) for _, module in stages_of(self.backbone)]
        layers = [layer for layer in layers if layer]
        listed = {id(parameter) for layer in layers for parameter in layer}
        others = [parameter for parameter in self.backbone_parameters() if id(parameter) not in listed]
        return [others + layers[0], *layers[1:]] if layers else [others]

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
    if weights is not None and weights.kind != "none":
        load_into(backbone, row, weights)
    backbone, features = with_stage_features(backbone, features, row, config)
    feature_norm = FEATURE_NORMS[config.feature_norm]
    return MultiHeadClassifier(backbone, features, class_counts, config.dropout, feature_norm, config.feature_root)


# The keys are the words that `ModelConfig.feature_norm` allows: whether a batch normalisation comes before the heads.
FEATURE_NORMS: Mapping[str, bool] = {"none": False, "batch": True}


def prior_biases(model: MultiHeadClassifier, label_counts: Sequence[NDArray[Any]]) -> None:
    """Let the heads begin with what is known without looking at an image: each bias is the logarithm of how often its
    class occurs, of a multi-label head its odds (Lin et al. 2017, Focal Loss for Dense Object Detection, 3.3).

    label_counts: for each head as `loss.log_priors` takes them.
    """
    for head, counts in zip(model.heads, label_counts, strict=True):
        assert isinstance(head, nn.Linear), "heads are linear"
        with torch.no_grad():
            head.bias.copy_(torch.from_numpy(log_priors(counts)))


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
