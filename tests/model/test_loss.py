"""Objectives against torch's own, by-hand values, and the report's constants."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fashion.config.train import TrainConfig
from fashion.model.loss import MultiHeadLoss, build_loss, class_weights, cross_entropy, report_loss

CLASSES = (7, 3, 3, 4, 6, 3)


def train(**fields: object) -> TrainConfig:
    return TrainConfig.model_validate(fields)


def batch(classes: tuple[int, ...] = CLASSES, n: int = 50, seed: int = 0) -> tuple[list[Tensor], Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = [3 * torch.randn(n, k, generator=generator) for k in classes]
    return logits, torch.stack([torch.randint(0, k, (n,), generator=generator) for k in classes], 1)


def test_cross_entropy_is_torchs_mean_over_heads() -> None:
    logits, targets = batch()
    own = cross_entropy(logits, targets)
    assert own.shape == (50,)
    assert own.dtype == torch.float32
    expected = sum(F.cross_entropy(head, targets[:, i]) for i, head in enumerate(logits)) / 6
    torch.testing.assert_close(own.mean(), expected)
    torch.testing.assert_close(build_loss(train(), CLASSES)(logits, targets), own)


def test_references_of_cross_entropy() -> None:
    """Uniform heads of the report's six sizes average 1.403."""
    uniform = [torch.zeros(1, k) for k in CLASSES]
    assert cross_entropy(uniform, torch.zeros(1, 6, dtype=torch.int64)).item() == pytest.approx(1.403, abs=5e-4)


def test_label_smoothing_equals_torchs() -> None:
    logits, targets = batch()
    own = build_loss(train(label_smoothing=0.1), CLASSES)(logits, targets)
    heads = [
        F.cross_entropy(head, targets[:, i], label_smoothing=0.1, reduction="none") for i, head in enumerate(logits)
    ]
    torch.testing.assert_close(own, torch.stack(heads).mean(0))


def test_the_reports_loss_has_the_reports_constants() -> None:
    targets = torch.zeros(1, 6, dtype=torch.int64)
    right = [torch.eye(k)[:1] * 1000 for k in CLASSES]
    wrong = [torch.eye(k)[1:2] * 1000 for k in CLASSES]
    assert report_loss(right, targets, 7).item() == pytest.approx(math.log(math.e + 6) - 1, abs=1e-6)
    assert report_loss(right, targets, 7).item() == pytest.approx(1.16542, abs=5e-6)
    assert report_loss(wrong, targets, 7).item() == pytest.approx(2.16542, abs=5e-6)
    assert report_loss([torch.zeros(1, k) for k in CLASSES], targets, 7).item() == pytest.approx(1.8373, abs=5e-5)


def test_the_reports_loss_step_by_step() -> None:
    logits, targets = batch()
    cube = torch.zeros(50, 7, 6)  # the report's [batch, 7, 6]
    for i, head in enumerate(logits):
        cube[:, : head.shape[1], i] = head.softmax(1)
    expected = torch.nn.CrossEntropyLoss(reduction="none")(cube, targets).mean(1)
    torch.testing.assert_close(report_loss(logits, targets, 7), expected)
    torch.testing.assert_close(build_loss(train(loss="report"), CLASSES)(logits, targets), expected)


@pytest.mark.parametrize("k", CLASSES)
def test_the_reports_gradient_at_uniform_is_a_kth_of_cross_entropys(k: int) -> None:
    logits = torch.zeros(1, k, requires_grad=True)
    target = torch.zeros(1, 1, dtype=torch.int64)
    (of_report,) = torch.autograd.grad(report_loss([logits], target, 7).sum(), logits)
    (of_plain,) = torch.autograd.grad(cross_entropy([logits], target).sum(), logits)
    torch.testing.assert_close(of_report, of_plain / k)


def test_focal_by_hand() -> None:
    logits = [torch.tensor([[math.log(0.7), math.log(0.2), math.log(0.1)]])]
    loss = build_loss(train(loss="focal", focal_gamma=2.0), [3])(logits, torch.tensor([[1]]))
    assert loss.item() == pytest.approx(-(0.8**2) * math.log(0.2), rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighting", ["none", "inverse"])
def test_focal_without_focus_is_cross_entropy(smoothing: float, weighting: str) -> None:
    logits, targets = batch()
    counts = [np.arange(1, k + 1) for k in CLASSES]
    more = {"label_smoothing": smoothing, "class_weighting": weighting}
    focal = build_loss(train(loss="focal", focal_gamma=0.0, **more), CLASSES, counts)(logits, targets)
    torch.testing.assert_close(focal, build_loss(train(**more), CLASSES, counts)(logits, targets))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_gradients_stay_finite_for_certain_samples(gamma: float) -> None:
    logits = torch.tensor([[200.0, -200.0], [200.0, -200.0]], requires_grad=True)
    build_loss(train(loss="focal", focal_gamma=gamma), [2])([logits], torch.tensor([[0], [1]])).sum().backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("weighting", ["inverse", "sqrt_inverse"])
def test_class_weights(weighting: str) -> None:
    counts = np.array([100, 25, 0, 875])
    weights = class_weights(counts, weighting)
    assert (weights * counts).sum() / counts.sum() == pytest.approx(1.0)
    assert weights[1] / weights[0] == pytest.approx(4 if weighting == "inverse" else 2)
    assert weights[2] == 0


def test_class_weights_are_torchs_before_its_division() -> None:
    logits, targets = batch((4,))
    counts = [np.array([10, 20, 30, 40])]
    own = build_loss(train(class_weighting="inverse"), (4,), counts)(logits, targets)
    weight = torch.tensor(class_weights(counts[0], "inverse"), dtype=torch.float32)
    expected = F.cross_entropy(logits[0], targets[:, 0], weight=weight)  # divided by the weights' sum
    torch.testing.assert_close(own.sum() / weight[targets[:, 0]].sum(), expected)


def test_class_weights_apply_to_the_reports_loss() -> None:
    logits, targets = batch((3, 4))
    counts = [np.array([1, 1, 1]), np.array([5, 5, 5, 5])]
    own = build_loss(train(loss="report", class_weighting="inverse"), (3, 4), counts)(logits, targets)
    torch.testing.assert_close(own, report_loss(logits, targets, 4))


def test_class_weighting_without_counts_is_a_bug() -> None:
    with pytest.raises(ValueError, match="train_label_counts"):
        build_loss(train(class_weighting="inverse"), CLASSES)
    with pytest.raises(ValueError, match="every head"):
        build_loss(train(class_weighting="inverse"), (3,), [np.array([1, 2])])


def test_bf16_logits_are_computed_in_float32() -> None:
    logits, targets = batch()
    half = [head.bfloat16() for head in logits]
    for loss in ("cross_entropy", "focal", "report"):
        objective = build_loss(train(loss=loss), CLASSES)
        assert torch.equal(objective(half, targets), objective([head.float() for head in half], targets))


def test_adjusted_logits_are_those_of_the_paper() -> None:
    """Menon et al. 2021, equation 10: -log softmax(f + tau log pi)."""
    counts = [np.array([90, 9, 1]), np.array([50, 50])]
    logits, targets = batch((3, 2))
    own = build_loss(train(logit_adjustment=0.8), (3, 2), counts)(logits, targets)
    expected = []
    for head, target, count in zip(logits, targets.unbind(1), counts, strict=True):
        prior = torch.tensor((count + 1) / (count + 1).sum(), dtype=torch.float32)
        expected.append(-(head + 0.8 * prior.log()).log_softmax(1).gather(1, target[:, None])[:, 0])
    torch.testing.assert_close(own, torch.stack(expected).mean(0))


def test_with_adjustment_the_best_constant_answer_is_balanced() -> None:
    """Of images that all look the same, the adjusted minimum has no preference: it is that of balanced error."""
    targets = torch.tensor([0] * 90 + [1] * 9 + [2])[:, None]
    counts = [np.array([9000, 900, 100])]  # so many that the one more of each class is little
    for strength, preferred in ((0.0, 0.9), (1.0, 1 / 3)):
        loss = build_loss(train(logit_adjustment=strength), (3,), counts)
        bias = torch.zeros(3, requires_grad=True)
        solver = torch.optim.LBFGS([bias], max_iter=200, line_search_fn="strong_wolfe")

        def objective(loss: MultiHeadLoss = loss, bias: Tensor = bias) -> Tensor:
            bias.grad = None
            found = loss([bias.expand(100, 3)], targets).mean()
            found.backward()
            return found

        solver.step(objective)
        assert float(bias.detach().softmax(0)[0]) == pytest.approx(preferred, abs=0.01)


def test_adjustment_of_several_labels_adds_log_odds_and_needs_counts() -> None:
    counts = [np.array([[80, 20], [10, 90]])]
    logits, targets = [torch.randn(6, 2)], torch.randint(0, 2, (6, 2))
    own = build_loss(train(logit_adjustment=1.0), (2,), counts, (True,))(logits, targets)
    odds = torch.tensor([21 / 81, 91 / 11]).log()
    expected = F.binary_cross_entropy_with_logits(logits[0] + odds, targets.float(), reduction="none").mean(1)
    torch.testing.assert_close(own, expected)
    with pytest.raises(ValueError, match="train_label_counts"):
        build_loss(train(logit_adjustment=1.0), (2,))
