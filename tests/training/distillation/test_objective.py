"""The loss against a teacher, beside torch's own losses and the paper's claims."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fashion.model.loss import cross_entropy, mixed
from fashion.training.distillation.objective import Distillation

COUNTS = (3, 5)
CPU = torch.device("cpu")


def teacher(n: int, multi: bool = False) -> np.ndarray:
    heads = [np.random.default_rng(k).dirichlet(np.ones(k), n) for k in COUNTS]
    if multi:
        heads[1] = np.random.default_rng(9).random((n, COUNTS[1]))
    return np.concatenate(heads, axis=1).astype(np.float32)


def student(n: int) -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(n, k, requires_grad=True) for k in COUNTS]


def of(soft: np.ndarray, weight: float = 0.5, temperature: float = 1.0, multi: bool = False) -> Distillation:
    return Distillation(soft, COUNTS, (False, multi), weight, temperature, CPU)


def test_a_certain_teacher_is_the_plain_cross_entropy() -> None:
    labels = torch.stack([torch.randint(k, (20,), generator=torch.Generator().manual_seed(k)) for k in COUNTS], 1)
    soft = torch.cat([F.one_hot(column, k) for column, k in zip(labels.T, COUNTS, strict=True)], 1).float().numpy()
    rows = torch.arange(20)
    torch.testing.assert_close(of(soft).losses(student(20), rows), cross_entropy(student(20), labels))


@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
def test_gradients_are_those_of_kl_divergence_times_the_squared_temperature(temperature: float) -> None:
    soft, rows = teacher(12), torch.tensor([11, 0, 3, 3])
    ours, theirs = student(4), student(4)
    of(soft, temperature=temperature).losses(ours, rows).sum().backward()
    start = 0
    for head, k in zip(theirs, COUNTS, strict=True):
        given = F.log_softmax(torch.from_numpy(soft[rows, start : start + k]).log() / temperature, dim=1)
        cooled = F.log_softmax(head / temperature, dim=1)
        loss = F.kl_div(cooled, given, reduction="none", log_target=True).sum(1) * temperature**2
        (loss.sum() / len(COUNTS)).backward()
        start += k
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad)


def test_hot_gradients_match_logits() -> None:
    """Hinton et al. 2015, equation 4: at a high temperature the gradient is (z - v) / classes, of centred logits."""
    soft, (head, other) = teacher(6), student(6)
    of(soft, temperature=500.0).losses([head, other], torch.arange(6)).sum().backward()
    logits = torch.from_numpy(soft[:, :3]).log()
    centred = (head - head.mean(1, keepdim=True)) - (logits - logits.mean(1, keepdim=True))
    assert head.grad is not None
    torch.testing.assert_close(head.grad * len(COUNTS), centred.detach() / 3, rtol=0.02, atol=2e-3)


def test_labels_that_may_hold_together_have_sigmoids() -> None:
    soft, rows, temperature = teacher(6, multi=True), torch.arange(6), 2.0
    head = student(6)
    found = of(soft, temperature=temperature, multi=True).losses(head, rows)
    single = F.cross_entropy(
        head[0] / temperature, F.softmax(torch.from_numpy(soft[:, :3]).log() / temperature, 1), reduction="none"
    )
    cooled = torch.sigmoid(torch.logit(torch.from_numpy(soft[:, 3:])) / temperature)
    multi = F.binary_cross_entropy_with_logits(head[1] / temperature, cooled, reduction="none").mean(1)
    torch.testing.assert_close(found, (single + multi) / 2 * temperature**2)


def test_an_image_that_the_teacher_does_not_know_has_its_labels_alone() -> None:
    soft, labels = teacher(3), torch.zeros(3, 2, dtype=torch.int64)
    soft[1] = np.nan
    distillation, heads = of(soft, weight=0.4), student(3)
    found = distillation.beside(cross_entropy)(heads, distillation.with_rows(labels, torch.arange(3)))
    plain = cross_entropy(heads, labels)
    torch.testing.assert_close(found[1], plain[1])
    assert not torch.isclose(found[0], plain[0])
    found.sum().backward()
    assert all(head.grad is not None and torch.isfinite(head.grad).all() for head in heads)


def test_rows_travel_with_the_targets_through_a_mixture_of_images() -> None:
    distillation, heads = of(teacher(10), weight=0.3), student(4)
    labels = torch.zeros(4, 2, dtype=torch.int64)
    own = distillation.with_rows(labels, torch.tensor([1, 2, 3, 4]))
    others = own.flip(0)
    assert own.tolist()[0] == [0, 0, 1]
    found = mixed(distillation.beside(cross_entropy), 0.75)(heads, torch.cat([own, others], dim=1))

    def expected(rows: list[int]) -> Tensor:
        return 0.7 * cross_entropy(heads, labels) + 0.3 * distillation.losses(heads, torch.tensor(rows))

    torch.testing.assert_close(found, 0.75 * expected([1, 2, 3, 4]) + 0.25 * expected([4, 3, 2, 1]))
