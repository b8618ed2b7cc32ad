"""Objectives for labels that are missing or multi-label, against plain torch with the labels masked by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from fashion.config.train import TrainConfig
from fashion.data import lists
from fashion.model.loss import LABEL_OBJECTIVES, MISSING, OBJECTIVES, build_loss, class_weights, columns_of_heads

CLASSES, MULTI = (4, 3, 2), (False, True, False)  # columns 0; 1, 2, 3; 4
COUNTS = [np.array([5, 1, 9, 2]), np.array([[3, 7], [8, 2], [6, 4]]), np.array([4, 12])]
SHAPES = [{}, {"label_smoothing": 0.1}, {"class_weighting": "inverse"}, {"loss": "focal", "focal_gamma": 2.0}]


def train(**changes: Any) -> TrainConfig:
    return TrainConfig.model_validate(changes)


def sample(n: int = 11, seed: int = 0) -> tuple[list[Tensor], Tensor]:
    """Labels of which about 40 % are missing; the last head has none at all."""
    generator = torch.Generator().manual_seed(seed)
    logits = [2 * torch.randn(n, k, generator=generator) for k in CLASSES]
    targets = torch.stack([torch.randint(0, k, (n,), generator=generator) for k in (4, 2, 2, 2, 2)], dim=1)
    targets[torch.rand(targets.shape, generator=generator) < 0.4] = MISSING
    targets[:, 4] = MISSING
    return [head.requires_grad_() for head in logits], targets


def known(targets: Tensor) -> Tensor:
    return (targets != MISSING).sum(0)


def by_hand(logits: list[Tensor], targets: Tensor, config: TrainConfig) -> Tensor:
    """The mean over all heads of the mean over the labelled rows, which alone are handed to torch."""
    weighted = config.class_weighting != "none"
    total = torch.zeros(())
    for head, columns in ((0, [0]), (2, [4])):
        for column in columns:
            rows = targets[:, column] != MISSING
            if not rows.any():
                continue
            weight = torch.tensor(class_weights(COUNTS[head], "inverse")).float() if weighted else None
            there, label = logits[head][rows], targets[rows, column]
            if config.loss == "focal":
                p = there.softmax(1).gather(1, label[:, None])[:, 0]
                losses = -((1 - p) ** config.focal_gamma) * p.log()
            else:
                smoothing = config.label_smoothing
                losses = F.cross_entropy(there, label, weight, reduction="none", label_smoothing=smoothing)
            total = total + losses.mean()
    values = []
    for index in range(3):
        rows = targets[:, 1 + index] != MISSING
        there, label = logits[1][rows, index], targets[rows, 1 + index].float()
        if config.loss == "focal":
            values.append(sigmoid_focal_loss(there, label, alpha=-1, gamma=config.focal_gamma))
            continue
        smooth = label * (1 - config.label_smoothing) + config.label_smoothing / 2
        losses = F.binary_cross_entropy_with_logits(there, smooth, reduction="none")
        if weighted:
            # The classes' mean weights are 1, and the ratio of their two weights is that of the counts.
            absent, held = class_weights(COUNTS[1][index], "inverse")
            assert held / absent == pytest.approx(COUNTS[1][index][0] / COUNTS[1][index][1])
            losses = losses * torch.where(label == 1, held, absent)
        values.append(losses)
    return (total + torch.cat(values).mean()) / 3


@pytest.mark.parametrize("changes", SHAPES, ids=str)
def test_missing_labels_give_no_loss_and_no_gradient(changes: dict[str, Any]) -> None:
    config = train(**changes)
    logits, targets = sample()
    loss = build_loss(config, CLASSES, COUNTS, MULTI)
    own = loss(logits, targets, loss.scales(known(targets), 11, CLASSES)).mean()
    expected = by_hand(logits, targets, config)
    torch.testing.assert_close(own, expected)
    own_gradients = torch.autograd.grad(own, logits)
    gradients = torch.autograd.grad(expected, logits, allow_unused=True)
    for mine, theirs in zip(own_gradients, gradients, strict=True):
        torch.testing.assert_close(mine, torch.zeros_like(mine) if theirs is None else theirs)
    for mine, target in zip(own_gradients, columns_of_heads(targets, CLASSES, MULTI), strict=True):
        assert not mine[target == MISSING].any()


@pytest.mark.parametrize("changes", SHAPES, ids=str)
def test_shards_and_parts_of_a_batch_add_up_to_it(changes: dict[str, Any]) -> None:
    logits, targets = sample()
    loss = build_loss(train(**changes), CLASSES, COUNTS, MULTI)
    scales = loss.scales(known(targets), 11, CLASSES)
    whole = loss(logits, targets, scales)
    shards = [slice(0, None, 2), slice(1, 8, 2), slice(9, None, 2)]
    parts = [loss([head[rows] for head in logits], targets[rows], scales) for rows in shards]
    torch.testing.assert_close(sum(part.sum() for part in parts), whole.sum())


def test_the_report_loss_of_what_is_labelled() -> None:
    logits, targets = [torch.randn(6, 3), torch.randn(6, 2)], torch.randint(0, 2, (6, 2))
    targets[[1, 4], 0] = MISSING
    loss = build_loss(train(loss="report"), (3, 2))
    own = loss(logits, targets, loss.scales(known(targets), 6, (3, 2))).mean()
    rows = targets[:, 0] != MISSING
    first = F.cross_entropy(logits[0][rows].softmax(1), targets[rows, 0])
    second = F.cross_entropy(F.pad(logits[1].softmax(1), (0, 1)), targets[:, 1])
    torch.testing.assert_close(own, (first + second) / 2)


@pytest.mark.parametrize("loss", OBJECTIVES)
def test_a_batch_without_any_label_gives_zeros(loss: str) -> None:
    logits = [torch.randn(3, 4, requires_grad=True), torch.randn(3, 2, requires_grad=True)]
    targets = torch.full((3, 2), MISSING)
    objective = build_loss(train(loss=loss), (4, 2))
    values = objective(logits, targets, objective.scales(known(targets), 3, (4, 2)))
    assert values.tolist() == [0.0] * 3
    assert not any(gradient.any() for gradient in torch.autograd.grad(values.sum(), logits))


def test_fully_labelled_data_keep_every_bit() -> None:
    logits = [torch.randn(9, 4, requires_grad=True), torch.randn(9, 2, requires_grad=True)]
    targets = torch.randint(0, 2, (9, 2))
    plain = torch.stack([F.cross_entropy(h, targets[:, i], reduction="none") for i, h in enumerate(logits)]).mean(0)
    own = build_loss(train(), (4, 2))(logits, targets)
    assert torch.equal(own, plain)
    for mine, theirs in zip(
        torch.autograd.grad(own.sum(), logits), torch.autograd.grad(plain.sum(), logits), strict=True
    ):
        assert torch.equal(mine, theirs)


def test_multi_label_heads_of_complete_labels() -> None:
    logits, targets = sample()
    targets = targets.clamp_min(0)
    own = build_loss(train(), CLASSES, None, MULTI)(logits, targets)
    binary = F.binary_cross_entropy_with_logits(logits[1], targets[:, 1:4].float(), reduction="none").mean(1)
    others = [F.cross_entropy(logits[h], targets[:, c], reduction="none") for h, c in ((0, 0), (2, 4))]
    torch.testing.assert_close(own, (binary + others[0] + others[1]) / 3)


def test_a_label_that_always_or_never_holds_is_weighed() -> None:
    counts = [np.array([[8, 0], [0, 8], [0, 0]])]
    loss = build_loss(train(class_weighting="sqrt_inverse"), (3,), counts, (True,))
    logits, targets = torch.randn(5, 3), torch.tensor([[0, 1, MISSING]] * 5)
    own = loss([logits], targets, loss.scales(known(targets), 5, (3,))).mean()
    torch.testing.assert_close(own, F.binary_cross_entropy_with_logits(logits[:, :2], targets[:, :2].float()))


def test_report_is_refused_for_multi_label_heads() -> None:
    with pytest.raises(ValueError, match="no objective report: cross_entropy, focal"):
        build_loss(train(loss="report"), (2,), None, (True,))
    assert set(OBJECTIVES) - set(LABEL_OBJECTIVES) == {"report"}


def test_missing_is_what_data_sets_say() -> None:
    assert MISSING == lists.MISSING
