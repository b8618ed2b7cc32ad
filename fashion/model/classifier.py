"""The classifier that is trained: one backbone, one linear head per attribute."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Self

from torch import Tensor, nn

from fashion.config import ModelConfig, TrainConfig
from fashion.errors import UserError
from fashion.model import backbones
from fashion.model.backbones import HALF, IMAGENET_MEAN, IMAGENET_STD, Channels, Row
from fashion.model.network import complete_row, make_backbone, stages_of
from fashion.model.weights import ResolvedWeights, load_into


class MultiHeadClassifier(nn.Module):
    """Images (n, 3, H, W) to a tuple of logits, (n, k_h) for head h.

    Each head is a dropout and a linear layer on the pooled features, as in the report ("Model"), but over its own
    classes only: no softmax, no zero padding (the `report` objective adds both itself). `feature_norm` puts a batch
    normalisation without parameters before them (He et al. 2022, appendix A.1).
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
        return self.backbone(images)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        features = self.norm(self.features(images))
        return tuple(head(self.dropout(features)) for head in self.heads)

    def without_backbone(self) -> Self:
        """The same model on pooled features (n, F) in the place of images; what is left are the heads' own tensors."""
        self.backbone = nn.Identity()
        return self

    def backbone_parameters(self) -> Iterator[nn.Parameter]:
        return self.backbone.parameters()

    def head_parameters(self) -> Iterator[nn.Parameter]:
        return self.heads.parameters()

    def freeze(self, train: TrainConfig) -> None:
        """Freeze what `train` says: the backbone, its first stages, or nothing."""
        if train.freeze_backbone:
            self.freeze_backbone()
        elif train.freeze_stages:
            self.freeze_stages(train.freeze_stages)

    def freeze_backbone(self) -> None:
        """Train the heads alone. The backbone stays in evaluation mode, so that its batch statistics keep still too."""
        self._freeze([self.backbone])

    def freeze_stages(self, count: int) -> None:
        """Keep the first stages of the backbone as they are, batch statistics included. Their backward pass is saved: on
        a CPU, where the first stages cost most, a good part of the time.

        Raises UserError when the backbone has no stage to spare.
        """
        stages = stages_of(self.backbone)
        if count >= len(stages):
            listed = ", ".join(name for name, _ in stages)
            raise UserError(f"train.freeze_stages: must be less than the backbone's stages ({listed}); got {count}")
        self._freeze([module for _, module in stages[:count]])

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

    `weights` is what `resolve_weights` found; None leaves random values, to be overwritten from a checkpoint. All
    random values come from torch's global generator, which the caller seeds.
    Raises UserError for an unknown backbone, WeightsError when the weights can't be read or don't fit.
    """
    row = backbones.row(config.backbone)
    backbone, features = make_backbone(row, config.drop_path)
    if weights is not None and weights.path is not None:
        load_into(backbone, row, weights)
    return MultiHeadClassifier(backbone, features, class_counts, config.dropout, config.feature_norm == "batch")


def normalization(normalize: str, row: Row) -> tuple[Channels, Channels]:
    """Channel means and deviations for pixels in [0, 1]: `weights` (the backbone's own), `imagenet` or `half`."""
    if normalize == "imagenet":
        return IMAGENET_MEAN, IMAGENET_STD
    if normalize == "half":
        return HALF, HALF
    row = complete_row(row)
    return row.mean, row.std
