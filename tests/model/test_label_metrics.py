"""The metrics of labels that are missing or multi-label against scikit-learn; exact whatever the batches and ranks."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from torch import Tensor

from fashion.model.loss import MISSING
from fashion.model.metrics import LabelMeter, Meter, make_meter
from tests.support.metered import metered

CLASSES, MULTI = (7, 3, 2), (False, True, False)
NAMES = ["pattern", "parts", "hem"]


def sample(n: int = 203, seed: int = 0, missing: float = 0.3) -> tuple[list[Tensor], Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = [3 * torch.randn(n, k, generator=generator) for k in CLASSES]
    targets = torch.stack([torch.randint(0, k, (n,), generator=generator) for k in (6, 2, 2, 2, 2)], dim=1)
    targets[torch.rand(targets.shape, generator=generator) < missing] = MISSING
    return logits, targets


def measure(logits: list[Tensor], targets: Tensor, sizes: list[int]) -> dict[str, float]:
    return metered(LabelMeter(CLASSES, multi_label=MULTI), NAMES, logits, targets, sizes)


def test_against_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    logits, targets = sample()
    found = measure(logits, targets, [203])
    truth, there = targets.numpy(), (targets != MISSING).numpy()
    losses, balanced, hits, labels = [], [], 0, 0
    exact = there.all(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a predicted class that does not occur
        for head, column in ((0, 0), (2, 4)):
            rows = there[:, column]
            probabilities = logits[head].double().softmax(1).numpy()[rows]
            predicted, label = probabilities.argmax(1), truth[rows, column]
            losses.append(metrics.log_loss(label, probabilities, labels=range(CLASSES[head])))
            balanced.append(metrics.balanced_accuracy_score(label, predicted))
            assert found[f"accuracy/{NAMES[head]}"] == metrics.accuracy_score(label, predicted)
            hits, labels = hits + int((predicted == label).sum()), labels + len(label)
            exact &= logits[head].argmax(1).numpy() == truth[:, column]
    probabilities, label, known = logits[1].double().sigmoid().numpy(), truth[:, 1:4], there[:, 1:4]
    losses.append(metrics.log_loss(label[known], probabilities[known], labels=[0, 1]))
    decided = probabilities > 0.5
    each = [metrics.balanced_accuracy_score(label[known[:, c], c], decided[known[:, c], c]) for c in range(3)]
    balanced.append(np.mean(each))
    assert found["accuracy/parts"] == metrics.accuracy_score(label[known], decided[known])
    hits, labels = hits + int((decided == label)[known].sum()), labels + int(known.sum())
    exact &= (decided == label).all(1)
    assert found["loss"] == pytest.approx(np.mean(losses), rel=1e-6)
    assert found["accuracy"] == hits / labels
    assert found["balanced_accuracy"] == pytest.approx(np.mean(balanced), rel=1e-12)
    assert found["exact_match"] == exact.sum() / there.all(1).sum()
    assert "loss_report" not in found


def test_batches_and_shards_do_not_matter() -> None:
    logits, targets = sample()
    logits[0][:5] *= 1e4  # huge losses beside tiny ones
    whole = measure(logits, targets, [203])
    assert whole == measure(logits, targets, [64, 64, 64, 11]) == measure(logits, targets, [1] * 203)
    shards = [LabelMeter(CLASSES, multi_label=MULTI) for _ in range(2)]
    for rank, meter in enumerate(shards):
        meter.update([head[rank::2] for head in logits], targets[rank::2])
    total = LabelMeter(CLASSES, multi_label=MULTI)
    total.restore(shards[0].sums + shards[1].sums)
    assert total.compute(NAMES) == whole


def test_what_is_complete_gives_the_numbers_of_the_plain_meter() -> None:
    logits, targets = [torch.randn(50, 4), torch.randn(50, 2)], torch.randint(0, 2, (50, 2))
    found = []
    for meter in (Meter((4, 2)), LabelMeter((4, 2))):
        meter.update(logits, targets)
        found.append(meter.compute(["a", "b"]))
    assert list(found[0]) == list(found[1])
    assert found[1] == pytest.approx(found[0], rel=1e-6)
    assert type(make_meter((4, 2))) is Meter
    assert type(make_meter((4, 2), complete=False)) is type(make_meter((4, 2), multi_label=(True, False))) is LabelMeter


def test_a_head_without_labels_is_in_no_mean() -> None:
    logits, targets = sample(missing=0.0)
    targets[:, 4] = MISSING
    found = measure(logits, targets, [203])
    assert "accuracy/hem" not in found
    assert "exact_match" not in found
    rest = LabelMeter(CLASSES[:2], multi_label=MULTI[:2])
    rest.update(logits[:2], targets[:, :4])
    rest_found = rest.compute(NAMES[:2])
    assert all(found[name] == rest_found[name] for name in ("loss", "accuracy", "balanced_accuracy"))
    with pytest.raises(ValueError, match="no labels were counted"):
        measure(logits, torch.full_like(targets, MISSING), [203])
    with pytest.raises(ValueError, match="2 heads, but 1 attribute names"):
        rest.compute(["pattern"])


@pytest.mark.parametrize("head", [0, 1])
def test_logits_that_are_not_finite_show_even_where_the_label_is_missing(head: int) -> None:
    logits, targets = sample()
    targets[7] = MISSING
    logits[head][7, 1] = float("nan")
    found = measure(logits, targets, [203])
    assert not math.isfinite(found["loss"])
    assert math.isfinite(found["accuracy"])
