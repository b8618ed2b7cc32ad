"""Metrics against scikit-learn; exact whatever the batches and ranks."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from fashion.model.metrics import Meter
from tests.support.metered import metered

CLASSES = (7, 3, 2)
NAMES = ["pattern", "sleeve", "hem"]


def sample(n: int = 203, seed: int = 0) -> tuple[list[Tensor], Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = [4 * torch.randn(n, k, generator=generator) for k in CLASSES]
    return logits, torch.stack([torch.randint(0, max(2, k - 1), (n,), generator=generator) for k in CLASSES], 1)


def measure(logits: list[Tensor], targets: Tensor, sizes: list[int]) -> dict[str, float]:
    return metered(Meter(CLASSES), NAMES, logits, targets, sizes)


def test_against_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    logits, targets = sample()  # the last class of the first two heads never occurs
    found = measure(logits, targets, [203])
    probabilities = [head.double().softmax(1).numpy() for head in logits]
    predicted = [head.argmax(1).numpy() for head in logits]
    truth = [targets[:, i].numpy() for i in range(3)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # classes predicted that do not occur
        balanced = [metrics.balanced_accuracy_score(t, p) for t, p in zip(truth, predicted, strict=True)]
    losses = [metrics.log_loss(t, p, labels=range(p.shape[1])) for t, p in zip(truth, probabilities, strict=True)]
    accuracies = [metrics.accuracy_score(t, p) for t, p in zip(truth, predicted, strict=True)]
    assert found["loss"] == pytest.approx(sum(losses) / 3, rel=1e-5)
    assert found["balanced_accuracy"] == pytest.approx(sum(balanced) / 3, rel=1e-12)
    assert found["accuracy"] == pytest.approx(sum(accuracies) / 3, rel=1e-12)
    for name, accuracy in zip(NAMES, accuracies, strict=True):
        assert found[f"accuracy/{name}"] == accuracy
    exact = sum(all(p[i] == t[i] for p, t in zip(predicted, truth, strict=True)) for i in range(203)) / 203
    assert found["exact_match"] == exact


def test_the_keys() -> None:
    found = measure(*sample(), [203])
    assert list(found) == [
        *["loss", "accuracy", "balanced_accuracy", "exact_match", "loss_report"],
        *["accuracy/pattern", "accuracy/sleeve", "accuracy/hem"],
    ]
    assert all(isinstance(value, float) for value in found.values())


def test_batches_do_not_matter() -> None:
    logits, targets = sample()
    logits[0][:5] *= 1e4  # huge losses beside tiny ones
    logits[1][5:9] *= 1e-4
    assert (
        measure(logits, targets, [203])
        == measure(logits, targets, [64, 64, 64, 11])
        == measure(logits, targets, [1] * 203)
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_logits_that_are_not_finite_show(value: float) -> None:
    logits, targets = sample()
    targets[7, 0] = 0
    logits[0][7, 3] = value  # not the target's: minus infinity alone would give a finite cross entropy
    found = measure(logits, targets, [100, 103])
    assert not math.isfinite(found["loss"])
    assert not math.isfinite(found["loss_report"])
    assert math.isfinite(found["accuracy"])


def _rank(rank: int, folder: str, sizes: list[list[int]]) -> None:
    torch.set_num_threads(1)
    group = torch.distributed
    group.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    logits, targets = sample()
    meter = Meter(CLASSES)
    place = rank
    for size in sizes[rank]:
        mine = torch.arange(place, 203, 2)[:size]
        meter.update([head[mine] for head in logits], targets[mine])
        place += 2 * size
    meter.reduce()
    torch.save(meter.compute(NAMES), f"{folder}/{rank}.pt")
    group.destroy_process_group()


def test_two_processes_with_uneven_shards_equal_one(tmp_path: Path) -> None:
    sizes = [[40, 40, 22], [100, 1]]
    spawn(_rank, (str(tmp_path), sizes), nprocs=2)
    one = measure(*sample(), [203])
    for rank in (0, 1):
        assert torch.load(tmp_path / f"{rank}.pt", weights_only=True) == one


def test_misuse_is_a_bug() -> None:
    meter = Meter(CLASSES)
    with pytest.raises(ValueError, match="no samples"):
        meter.compute(NAMES)
    logits, targets = sample()
    meter.update(logits, targets)
    meter.reduce()
    with pytest.raises(RuntimeError, match="reduced before"):
        meter.reduce()
    with pytest.raises(ValueError, match="3 heads, but 1"):
        meter.compute(["one"])
