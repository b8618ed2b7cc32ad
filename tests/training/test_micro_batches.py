"""Out of memory in a training step: the same global batch in smaller parts, told, and never the same again."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fashion.config.trial import TrialConfig
from fashion.data.batches import Worker
from fashion.data.layout import read_dataset
from fashion.model import precision
from fashion.model.classifier import MultiHeadClassifier
from fashion.model.loss import build_loss
from fashion.model.pretrained.resolved_weights import ResolvedWeights
from fashion.record.trial import EpochReport
from fashion.record.trial_files import LAST, MICRO_BATCHES
from fashion.training import micro_batches
from fashion.training.micro_batches import OutOfMemory, add_gradients, is_out_of_memory, noted_parts
from fashion.training.task import Note, Task, TrialEvent
from fashion.training.worker import trial_reports

NONE = ResolvedWeights("none")


def configured(root: Path, **train: Any) -> TrialConfig:
    return TrialConfig.model_validate(
        {
            "data": {"root": str(root), "resize": 36, "crop": 32},
            "model": {"backbone": "tiny", "weights": "none"},
            "train": {"epochs": 3, "batch_size": 32, "precision": "fp32", "layout": "nchw", **train},
        }
    )


def task(root: Path, folder: Path, config: TrialConfig) -> Task:
    cache = folder.parent / "cache"
    return Task(0, config, NONE, folder, root, read_dataset(root).fingerprint(), cache, 1)


def limit(monkeypatch: pytest.MonkeyPatch, images: int, error: BaseException, calls: list[int], after: int = 0) -> None:
    """Behind the first `after` training steps, one of more than so many images at once fails as the allocator would."""
    forward, steps = MultiHeadClassifier.forward, itertools.count(1)

    def limited(self: MultiHeadClassifier, pixels: torch.Tensor) -> Any:
        if self.training and next(steps) > after:
            calls.append(len(pixels))
            if len(pixels) > images:
                raise error
        return forward(self, pixels)

    monkeypatch.setattr(MultiHeadClassifier, "forward", limited)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"
        ),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] data. DefaultCPUAllocator: not enough memory: you tried to"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError(),
    ],
)
def test_a_lack_of_memory_is_known_by_its_words(error: BaseException) -> None:
    assert is_out_of_memory(error)


def test_the_real_allocator_is_understood() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60)
    assert is_out_of_memory(caught.value)
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("out of memory"))


def test_micro_batches_have_the_gradients_of_the_whole_batch() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 4))
    heads = HeadsOf(net)
    images, targets = torch.randn(7, 3, 2, 2), torch.randint(0, 2, (7, 2))
    config = configured(Path("unused")).train
    loss = build_loss(config, (2, 2))
    found = {}
    for parts in (1, 2, 3, 50):
        net.zero_grad()
        logits, losses = add_gradients(heads, loss, images, targets, 1 / 7, parts, nullcontext)
        gradients = torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])
        found[parts] = torch.cat([gradients, losses, *(head.flatten() for head in logits)])
        assert not losses.requires_grad
    for parts in (2, 3, 50):
        torch.testing.assert_close(found[parts], found[1])


class HeadsOf(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(self.net(images).split(2, dim=1))


def test_a_trial_goes_on_with_smaller_micro_batches(
    demo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit comes in the second epoch: the first is not repeated, the second is told to be otherwise."""
    calls: list[int] = []
    mine = task(demo_root, tmp_path / "trials" / "0000", configured(demo_root))
    # An epoch has three steps. (Its report may come when the next one has begun.)
    limit(monkeypatch, 9, torch.OutOfMemoryError("CUDA out of memory."), calls, after=3)
    found: list[TrialEvent] = list(trial_reports(mine, Worker()))
    reports = [each for each in found if isinstance(each, EpochReport)]
    notes = [each.text for each in found if isinstance(each, Note)]
    # 32 fails, 16 fails, 8 fits: two notes, each followed by the report that the checkpoint carries.
    assert [note.split(" (")[0] for note in notes] == [
        "epoch 2: out of memory with 32 images at a time, it goes on with 2 micro-batches",
        "epoch 2: out of memory with 16 images at a time, it goes on with 4 micro-batches",
    ]
    assert [report.epoch for report in reports] == [1, 1, 1, 2, 3]
    settings = {report.epoch: report.setting for report in reports}
    assert settings == {1: "fp32 nchw", 2: "fp32 nchw, 4 micro-batches", 3: "fp32 nchw, 4 micro-batches"}
    assert calls[:2] == [32, 16]
    assert set(calls[2:]) == {8}
    assert len(calls[2:]) == 2 * 3 * 4  # two epochs of three steps of four parts: nothing was done twice
    assert noted_parts(mine.folder) == 4  # also for whoever resumes it


def test_without_batch_statistics_the_numbers_are_those_of_whole_batches(
    demo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured(demo_root, freeze_backbone=True, lr=0.1)
    config = config.model_copy(update={"model": config.model.model_copy(update={"dropout": 0.0})})
    whole = [
        r for r in trial_reports(task(demo_root, tmp_path / "whole", config), Worker()) if isinstance(r, EpochReport)
    ]
    limit(monkeypatch, 20, MemoryError(), [])
    parts = [
        r for r in trial_reports(task(demo_root, tmp_path / "parts", config), Worker()) if isinstance(r, EpochReport)
    ]
    assert [report.epoch for report in parts] == [1, 2, 3]
    for one, other in zip(whole, parts, strict=True):
        assert other.metrics["val_loss"] == pytest.approx(one.metrics["val_loss"], rel=1e-5)
        assert other.setting == f"{one.setting}, 2 micro-batches"


def test_a_trial_tells_that_its_precision_is_only_imitated(
    demo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "computes_bf16", lambda device: False)
    mine = task(demo_root, tmp_path / "trials" / "0000", configured(demo_root, epochs=1, precision="bf16"))
    first, *others = trial_reports(mine, Worker())
    assert isinstance(first, Note)
    assert "bf16 is only imitated" in first.text
    assert [each.setting for each in others if isinstance(each, EpochReport)] == ["bf16 nchw"]


def test_a_step_that_never_fits_ends_the_trial_with_its_reason(
    demo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    limit(monkeypatch, 0, RuntimeError("DefaultCPUAllocator: can't allocate memory"), calls)
    with pytest.raises(
        OutOfMemory, match="epoch 1: out of memory with 2 images at a time, and fewer can't be trained on"
    ):
        list(trial_reports(task(demo_root, tmp_path / "trial", configured(demo_root)), Worker()))
    assert calls == [32, 16, 8, 4, 2]
    assert not (tmp_path / "trial" / LAST).exists()


def test_another_error_is_not_taken_for_it(demo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit(monkeypatch, 0, RuntimeError("shapes cannot be multiplied"), [])
    with pytest.raises(RuntimeError, match="multiplied"):
        list(trial_reports(task(demo_root, tmp_path / "trial", configured(demo_root)), Worker()))
    assert not (tmp_path / "trial" / MICRO_BATCHES).exists()


@pytest.fixture(autouse=True)
def packs_of_their_own() -> Iterator[None]:
    from fashion.training import worker as module

    module._packs.cache_clear()
    yield
    module._packs.cache_clear()


def test_the_note_is_plain(tmp_path: Path) -> None:
    assert noted_parts(tmp_path) == 1
    with pytest.raises(OutOfMemory), micro_batches.smaller_next_time(tmp_path, 3, 2, 64, Worker(0, 2)):
        raise MemoryError
    assert json.loads((tmp_path / MICRO_BATCHES).read_bytes()) == {"micro_batches": 4}
    assert micro_batches.in_words(noted_parts(tmp_path)) == ", 4 micro-batches"
