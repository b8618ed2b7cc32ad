"""Two workers and one give the same model, give up together, and go on together; and a kill between two files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from fashion.config.trial import TrialConfig
from fashion.data.batches import Worker
from fashion.data.demo import write_demo
from fashion.data.layout import read_dataset
from fashion.data.lists import MISSING, Attribute
from fashion.data.pack import Pack
from fashion.errors import TrialDiverged
from fashion.model.loss import build_loss
from fashion.model.pretrained.resolved_weights import ResolvedWeights
from fashion.record.trial import EpochReport
from fashion.record.trial_files import LAST, best_path, predictions_path
from fashion.training import checkpoint, loop
from fashion.training.feed import TrainingData
from fashion.training.learners import learner
from fashion.training.loop import TrialInputs, fit
from tests.support.machines.process_group import leave_together
from tests.support.workers import run_workers

NO_WEIGHTS = ResolvedWeights("none")


def configured(root: Path, **options: Any) -> TrialConfig:
    """Every random step of the data in it: crop, flip, jitter, erasing; no dropout, which ranks draw each for
    itself."""
    sections: dict[str, Any] = {
        "data": {"root": str(root), "resize": 36, "crop": 32, "crop_mode": "random", "jitter": 0.2, "erase": 0.2},
        "model": {"backbone": "tiny", "weights": "none", "dropout": 0.0},
        "train": {"epochs": 2, "batch_size": 15, "precision": "fp32", **options},
    }
    return TrialConfig.model_validate({**sections, "seed": 3})


def trials(root: Path) -> dict[str, TrialConfig]:
    return {
        # No batch statistics: nothing that depends on how a batch is split over workers.
        "frozen": configured(root, freeze_backbone=True, lr=0.1),
        "averaged": configured(root, optimizer="adamw", lr=0.004, schedule="onecycle", ema=0.9),
    }


def opened(root: Path) -> TrainingData:
    dataset = read_dataset(root)
    train_pack, val_pack = (Pack.open_or_build(dataset, split, 36) for split in ("train", "val"))
    return TrainingData(train_pack, val_pack, dataset.attributes, dataset.fingerprint())


def partly_labelled(root: Path) -> TrainingData:
    """The demo's data with labels missing, unevenly: rank 0 of two sees more of the first attribute's. The second
    attribute's are missing in most batches, and the last one becomes a multi-label one of two classes."""
    data, rng = opened(root), np.random.default_rng(0)
    for pack in (data.train, data.val):
        assert pack.labels is not None
        labels = np.concatenate([pack.labels[:, :2], rng.integers(0, 2, (len(pack), 2))], axis=1)
        labels[rng.random(labels.shape) < 0.4] = MISSING
        labels[1::2, 0] = MISSING
        labels[3:-1, 1] = MISSING
        pack.labels = labels
    return replace(data, attributes=(*data.attributes[:2], Attribute("traits", ("a", "b"), multi_label=True)))


def numbers(reports: list[EpochReport]) -> list[dict[str, float]]:
    return [report.metrics for report in reports]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An odd number of validation images, so that two workers get uneven shards."""
    return write_demo(tmp_path_factory.mktemp("small") / "demo", train=64, val=33, test=8, size=36)


def _broken_on_rank_0(rank: int, step: int) -> None:
    """From now on the objective is NaN at that step, where the loop looks for it, and on rank 0 alone."""
    calls = iter(range(1, 1000))

    def build_broken(*arguments: Any) -> Any:
        loss = build_loss(*arguments)

        def broken(logits: Any, targets: Any) -> Any:
            return loss(logits, targets) * (float("nan") if next(calls) == step else 1.0)

        return SimpleNamespace(of_batch=lambda known, images, class_counts: broken)

    if rank == 0:
        setattr(learner, "build_loss", build_broken)  # noqa: B010 (no assignment: its type is another)
    loop.DIVERGENCE_CHECK_STEPS = step


def _worker(rank: int, root: Path, folder: Path) -> None:
    """Everything that needs two processes, in one pair of them: starting them takes the time."""
    torch.set_num_threads(1)
    group = torch.distributed
    # Workers that lose each other fail rather than wait for half an hour.
    wait = timedelta(seconds=120)
    group.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2, timeout=wait)
    data, found = opened(root), {}

    def run(name: str, config: TrialConfig) -> Iterator[EpochReport]:
        return fit(TrialInputs(config, data, NO_WEIGHTS, folder / name, worker=Worker(rank, 2)))

    for name, config in trials(root).items():
        found[name] = numbers(list(run(name, config)))
    partly = TrialInputs(
        trials(root)["frozen"], partly_labelled(root), NO_WEIGHTS, folder / "partly", worker=Worker(rank, 2)
    )
    found["partly"] = numbers(list(fit(partly)))
    config = trials(root)["averaged"]
    next(run("resumed", config))
    group.barrier()
    found["resumed"] = numbers(list(run("resumed", config)))
    _broken_on_rank_0(rank, step=3)
    try:
        list(run("diverged", config))
    except TrialDiverged as error:
        found["diverged"] = [{str(error): 0.0}]
    (folder / f"{rank}.json").write_text(json.dumps(found))
    leave_together()


def test_two_workers_agree_with_each_other_and_with_one(root: Path, tmp_path: Path) -> None:
    run_workers(_worker, 2, root, tmp_path)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == second  # every metric, and the reason for which the last trial was given up
    assert list(first["diverged"][0]) == ["epoch 1, step 3: train_loss is nan"]
    assert first["resumed"] == first["averaged"]
    data = opened(root)
    for name, config in trials(root).items():
        alone = numbers(list(fit(TrialInputs(config, data, NO_WEIGHTS, tmp_path / f"{name}-alone"))))
        for one, two in zip(alone, first[name], strict=True):
            exact = name == "frozen"
            assert two["train_loss"] == pytest.approx(one["train_loss"], rel=1e-5 if exact else 0.1)
            assert not exact or two["val_loss"] == pytest.approx(one["val_loss"], rel=1e-5)
            assert two["lr"] == one["lr"]
    partly = TrialInputs(trials(root)["frozen"], partly_labelled(root), NO_WEIGHTS, tmp_path / "partly-alone")
    for alone_one, two in zip(numbers(list(fit(partly))), first["partly"], strict=True):
        assert two == pytest.approx(alone_one, rel=1e-5)


def test_a_kill_between_the_files_of_an_epoch_loses_nothing(root: Path, tmp_path: Path) -> None:
    config, data = trials(root)["averaged"], opened(root)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    reports = []
    for report in fit(TrialInputs(config, data, NO_WEIGHTS, whole)):
        reports.append(report)
        if report.epoch == 1:
            shutil.copytree(whole, killed)
        else:  # the best weights are there, but the resumable state is still the first epoch's
            for path in (best_path(whole, 2), predictions_path(whole, 2)):
                shutil.copy(path, killed)
            (killed / ".last.pt.1.tmp").write_bytes(b"half")
    assert numbers(list(fit(TrialInputs(config, data, NO_WEIGHTS, killed)))) == numbers(reports)
    last = [checkpoint.load_last(folder / LAST) for folder in (whole, killed)]
    for part in ("model", "ema"):
        assert all(torch.equal(value, last[1][part][name]) for name, value in last[0][part].items())
    for name in ("best-0002.safetensors", "val-0002.parquet"):
        assert not (killed / name.replace("2", "1")).exists()
        assert (killed / name).exists()
    assert (killed / "val-0002.parquet").read_bytes() == (whole / "val-0002.parquet").read_bytes()
