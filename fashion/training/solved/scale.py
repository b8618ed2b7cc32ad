"""Features on one scale, on which a convex problem is solved quickly, and heads that take what was solved there."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fashion.model.classifier import MultiHeadClassifier
from fashion.training.solved.logistic import LogisticHead


@dataclass(frozen=True)
class Scale:
    """Of features (n, F): each one's mean and standard deviation (F,)."""

    mean: Tensor
    deviation: Tensor

    def standard(self, features: Tensor) -> Tensor:
        """Features (n, F) with mean 0 and standard deviation 1."""
        return (features - self.mean) / self.deviation

    @torch.no_grad()
    def behind_norm(self, model: MultiHeadClassifier) -> Scale:
        """The scale of what the model's heads are given. With `feature_norm: batch` the normalisation gets the means
        and variances, and leaves nearly standardised features; without, it is this scale."""
        if not isinstance(model.norm, nn.BatchNorm1d):
            return self
        assert model.norm.running_mean is not None, "it is made with statistics"
        assert model.norm.running_var is not None, "it is made with statistics"
        variance = self.deviation.square()
        model.norm.running_mean.copy_(self.mean)
        model.norm.running_var.copy_(variance)
        # What it divides by is kept from 0.
        return Scale(torch.zeros_like(self.mean), self.deviation / (variance + model.norm.eps).sqrt())

    @torch.no_grad()
    def give(self, layer: nn.Module, solved: LogisticHead) -> None:
        """Let a head of features on this scale do what one solved for standardised features does."""
        assert isinstance(layer, nn.Linear), "the classifier's heads are"
        weight = solved.weight / self.deviation
        layer.weight.copy_(weight)
        layer.bias.copy_(solved.bias - weight @ self.mean)
