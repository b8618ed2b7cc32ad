"""Logistic regression with an L2 penalty: one linear head on fixed features, solved instead of trained.

The problem is convex, so that nothing but the strength of the penalty is left to choose; that is done by folds. The
objective is scikit-learn's for `LogisticRegression` with C = 1 / (strength * n) after a `StandardScaler`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from fashion.model.optim import lbfgs

# Half a decade apart, from strong to weak: each solution is the next one's start.
STRENGTHS = tuple(10 ** (exponent / 2) for exponent in range(1, -8, -1))
FOLDS = 5
WORSE = 2  # so many strengths in a row that are worse than the best end the search
LEAST = 2 * FOLDS  # images below which no strength is chosen: it is then the strongest


@dataclass(frozen=True, eq=False)
class LogisticHead:
    """weight (k, F) and bias (k,) for standardised features. strength: of the penalty, half of which times the squared
    weights is added to the mean loss; biases are not penalised. losses: the mean loss of images that were left out, in
    nats, for each of STRENGTHS that was tried; empty where none was chosen."""

    weight: Tensor
    bias: Tensor
    strength: float
    losses: tuple[float, ...] = ()


def solve_head(
    features: Tensor, targets: Tensor, classes: int, fold: Tensor, weights: Tensor | None = None
) -> LogisticHead | None:
    """The head with the strength that predicts left-out images best; None where no label is known.

    features: (n, F), standardised. targets: (n,) class indices, or of a multi-label attribute (n, classes) of 0 and 1;
    negative where they are not known. fold: (n,) from 0 to FOLDS - 1; rows of one image are in one fold. weights: (n,)
    how much a row counts, by default all alike.
    """
    weights = torch.ones_like(features[:, 0]) if weights is None else weights
    known = (targets >= 0) if targets.ndim == 1 else (targets >= 0).any(1)
    features, targets, fold, weights = features[known], targets[known], fold[known], weights[known]
    if not len(features):
        return None
    nothing = features.new_zeros(classes, features.shape[1]), features.new_zeros(classes)
    if len(features) < LEAST or len(fold.unique()) < FOLDS:
        return LogisticHead(*minimum(features, targets, weights, STRENGTHS[0], *nothing), STRENGTHS[0])
    left_out = fold == torch.arange(FOLDS, device=fold.device)[:, None]
    kept = torch.where(left_out, 0.0, weights)
    weight, bias = nothing[0].expand(FOLDS, -1, -1), nothing[1].expand(FOLDS, -1)
    losses: list[float] = []
    for strength in STRENGTHS:
        # Roughly: what comes of it is compared with other strengths, and they are half a decade apart.
        weight, bias = minima(features, targets, kept, strength, weight, bias, rough=True)
        lost = sum(
            float(_summed(features[left] @ of_fold.T + its_bias, targets[left], weights[left]))
            for left, of_fold, its_bias in zip(left_out, weight, bias, strict=True)
        )
        losses.append(lost / float(_counted(targets, weights)))
        if len(losses) > WORSE and min(losses[-WORSE:]) > min(losses):
            break  # the weaker, the longer it takes, and the worse they have become
    chosen = STRENGTHS[losses.index(min(losses))]
    return LogisticHead(*minimum(features, targets, weights, chosen, *nothing), chosen, tuple(losses))


def minimum(
    features: Tensor, targets: Tensor, weights: Tensor, strength: float, weight: Tensor, bias: Tensor,
    rough: bool = False,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Weight (k, F) and bias (k,) of the lowest objective, by L-BFGS from the given ones, which stay as they are."""
    found = minima(features, targets, weights[None], strength, weight[None], bias[None], rough)
    return found[0][0], found[1][0]


def minima(
    features: Tensor, targets: Tensor, weights: Tensor, strength: float, weight: Tensor, bias: Tensor,
    rough: bool = False,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Weight (m, k, F) and bias (m, k) of m problems on the same features, which differ in how much a row counts,
    weights (m, n). Solved together, since most of the time goes into reading the features."""
    weight, bias = weight.clone().requires_grad_(True), bias.clone().requires_grad_(True)
    solver = lbfgs([{"params": [weight, bias]}], rough)

    def objective() -> Tensor:
        solver.zero_grad()
        logits = (features @ weight.flatten(0, 1).T + bias.flatten()).unflatten(1, weight.shape[:2])
        loss = strength / 2 * weight.square().sum()
        for one, counts in zip(logits.unbind(1), weights, strict=True):
            loss = loss + mean_loss(one, targets, counts)
        loss.backward()
        return loss

    with torch.enable_grad():
        solver.step(objective)
    return weight.detach(), bias.detach()


def mean_loss(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """The weighted mean of the cross entropy of the known labels, in nats."""
    return _summed(logits, targets, weights) / _counted(targets, weights)


def _summed(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """The weighted sum of the cross entropy of the known labels."""
    if targets.ndim == 1:
        return (F.cross_entropy(logits, targets, reduction="none") * weights).sum()
    each = F.binary_cross_entropy_with_logits(logits, targets.clamp_min(0).to(logits.dtype), reduction="none")
    return (torch.where(targets >= 0, each, 0.0) * weights[:, None]).sum()


def _counted(targets: Tensor, weights: Tensor) -> Tensor:
    """The weights of the known labels in all; never 0."""
    known = weights if targets.ndim == 1 else (targets >= 0).to(weights.dtype) * weights[:, None]
    return known.sum().clamp_min(1e-12)
