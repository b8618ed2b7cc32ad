"""The models of a trial's folds as one: the mean of their probabilities."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fashion.config.trial import TrialConfig
from fashion.model.classifier import build_model

FOLDS = "folds"  # the tensors of model k of several are called folds.k.NAME


class FoldMean(nn.Module):
    """Images (n, 3, H, W) to a tuple of scores, (n, classes) for each head, whose softmax, or for a multi-label head
    whose sigmoid, is the mean of the models' probabilities. multi_label: which heads are."""

    def __init__(self, models: Sequence[nn.Module], multi_label: Sequence[bool]) -> None:
        super().__init__()
        self.folds = nn.ModuleList(models)
        self.multi_label = tuple(multi_label)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        outputs = [model(images) for model in self.folds]
        heads = (torch.stack([head.float() for head in each]) for each in zip(*outputs, strict=True))
        return tuple(_mean_score(head, multi) for head, multi in zip(heads, self.multi_label, strict=True))


def _mean_score(logits: Tensor, multi_label: bool) -> Tensor:
    """logits (K, n, classes). The logarithm of the mean probability, or of the mean odds for and against each label."""
    if not multi_label:
        return torch.logsumexp(F.log_softmax(logits, dim=2), dim=0) - math.log(len(logits))
    return torch.logsumexp(F.logsigmoid(logits), dim=0) - torch.logsumexp(F.logsigmoid(-logits), dim=0)


def build_promoted(config: TrialConfig, class_counts: Sequence[int], multi_label: Sequence[bool]) -> nn.Module:
    """The network that a trial's promoted weights belong to, with random ones: one model, or with `data.folds` the mean
    of the folds' models. Raises as `build_model`."""
    if config.data.folds is None:
        return build_model(config.model, class_counts)
    return FoldMean([build_model(config.model, class_counts) for _ in range(config.data.folds)], multi_label)


def together(states: Sequence[Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
    """The tensors of a trial's models under the names that `build_promoted` gives them. states: of one or several."""
    if len(states) == 1:
        return states[0]
    return {f"{FOLDS}.{fold}.{name}": tensor for fold, state in enumerate(states) for name, tensor in state.items()}
