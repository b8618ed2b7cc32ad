"""The loop: resumable to the bit, deterministic, equal on one worker and on two, and honest about divergence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import torch.distributed as dist

from fashion.data.batches import Worker
from fashion.data.layout import read_dataset
from fashion.errors import CheckpointError, TrialDiverged
from fashion.record.trial import EpochReport
from fashion.record.trial_files import LAST, PREVIOUS, best_path
from fashion.training.checkpoint import mend_last
from fashion.training.loop import TrialInputs, fit
from tests.support.machines.process_group import leave_together
from tests.support.trained import NONE, config, packs, training
from tests.support.workers import run_workers

RECIPES = {
    "adamw, one-cycle, average": {"optimizer": "adamw", "lr": 0.005, "schedule": "onecycle", "ema": 0.9},
    "sgd, cosine, warm-up": {
        "optimizer": "sgd",
        "lr": 0.05,
        "schedule": "cosine",
        "warmup_epochs": 1,
        "clip_grad": 1.0,
    },
}


def numbers(reports: list[EpochReport]) -> list[dict[str, float]]:
    return [report.metrics for report in reports]


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_trial_stopped_after_any_epoch_goes_on_to_the_same_numbers(
    demo_root: Path, tmp_path: Path, recipe: dict[str, Any]
) -> None:
    wanted = config(demo_root, **recipe)
    data = packs(demo_root, wanted)
    whole = list(fit(TrialInputs(wanted, data, NONE, tmp_path / "whole")))
    assert [report.epoch for report in whole] == [1, 2, 3]
    for stop in (1, 2):
        folder = tmp_path / f"stopped-{stop}"
        first = training(TrialInputs(wanted, data, NONE, folder))
        for _ in range(stop):
            next(first)
        first.close()
        torch.manual_seed(99)  # what other work left behind must not matter
        resumed = list(fit(TrialInputs(wanted, data, NONE, folder)))
        assert numbers(resumed) == numbers(whole)
        assert [report.attempt for report in resumed] == [1] * stop + [2] * (3 - stop)
        best = max(folder.glob("best-*.safetensors"))
        assert best.name in {path.name for path in (tmp_path / "whole").glob("best-*")}


def test_the_seed_decides(demo_root: Path, tmp_path: Path) -> None:
    one = config(demo_root, epochs=1)
    data = packs(demo_root, one)
    first, again = (numbers(list(fit(TrialInputs(one, data, NONE, tmp_path / name)))) for name in ("a", "b"))
    other = numbers(list(fit(TrialInputs(one.model_copy(update={"seed": 8}), data, NONE, tmp_path / "c"))))
    assert first == again != other


def test_it_learns(demo_root: Path, tmp_path: Path) -> None:
    wanted = config(demo_root, epochs=8, optimizer="adamw", lr=0.01, schedule="onecycle", batch_size=16)
    reports = list(fit(TrialInputs(wanted, packs(demo_root, wanted), NONE, tmp_path)))
    assert reports[-1].metrics["train_loss"] < 0.8 * reports[0].metrics["train_loss"]


def test_the_previous_best_stays_until_the_new_ones_report_is_taken(demo_root: Path, tmp_path: Path) -> None:
    wanted = config(demo_root, epochs=4, optimizer="adamw", lr=0.005, schedule="onecycle")
    best = 0
    loss = float("inf")
    for report in fit(TrialInputs(wanted, packs(demo_root, wanted), NONE, tmp_path)):
        if best:
            assert (tmp_path / f"best-{best:04d}.safetensors").is_file()
        if report.metrics["val_loss"] < loss:
            best, loss = report.epoch, report.metrics["val_loss"]
        assert (tmp_path / f"best-{best:04d}.safetensors").is_file()
    assert [path.name for path in tmp_path.glob("best-*")] == [f"best-{best:04d}.safetensors"]


def test_the_stored_validation_predictions_are_the_reported_accuracy(demo_root: Path, tmp_path: Path) -> None:
    wanted = config(demo_root, epochs=2)
    data = packs(demo_root, wanted)
    reports = list(fit(TrialInputs(wanted, data, NONE, tmp_path)))
    path = max(tmp_path.glob("val-*.parquet"))
    epoch = int(path.stem.split("-")[1])
    table = pq.read_table(path)
    assert table["image"].to_pylist() == list(data.val.names)
    assert data.val.labels is not None
    hits = [
        np.array(table[name].to_pylist()).argmax(axis=1) == data.val.labels[:, head]
        for head, name in enumerate(data.names)
    ]
    assert np.mean(hits) == pytest.approx(reports[epoch - 1].metrics["val_accuracy"], abs=1e-12)


def test_a_loss_that_is_not_a_number_ends_the_trial(demo_root: Path, tmp_path: Path) -> None:
    # Each step multiplies every weight by about 1 - lr * weight_decay = -999.
    wanted = config(demo_root, lr=100.0, weight_decay=10.0, epochs=20)
    with pytest.raises(TrialDiverged, match="loss is"):
        list(fit(TrialInputs(wanted, packs(demo_root, wanted), NONE, tmp_path)))


def test_a_frozen_backbone_stays_as_it_was(demo_root: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    wanted = config(demo_root, epochs=3, freeze_backbone=True, optimizer="adamw", lr=0.01)
    data = packs(demo_root, wanted)
    states = []
    for report in fit(TrialInputs(wanted, data, NONE, tmp_path)):
        path = tmp_path / f"best-{report.epoch:04d}.safetensors"
        if path.is_file():
            states.append(load_file(path))
    assert len(states) > 1
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[-1][name]) == name.startswith("backbone."), name


def test_the_first_stages_stay_as_they_were(demo_root: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    wanted = config(demo_root, epochs=3, freeze_stages=2, optimizer="adamw", lr=0.01)
    states = []
    for report in fit(TrialInputs(wanted, packs(demo_root, wanted), NONE, tmp_path)):
        path = tmp_path / f"best-{report.epoch:04d}.safetensors"
        if path.is_file():
            states.append(load_file(path))
    assert len(states) > 1
    still = ("backbone.stem.", "backbone.stage1.")
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[-1][name]) == name.startswith(still), name


def test_another_configurations_checkpoint_is_refused(demo_root: Path, tmp_path: Path) -> None:
    wanted = config(demo_root, epochs=2)
    data = packs(demo_root, wanted)
    next(fit(TrialInputs(wanted, data, NONE, tmp_path)))
    with pytest.raises(CheckpointError, match="another configuration"):
        next(fit(TrialInputs(wanted.model_copy(update={"seed": 8}), data, NONE, tmp_path)))
    (tmp_path / LAST).write_bytes((tmp_path / LAST).read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        next(fit(TrialInputs(wanted, data, NONE, tmp_path)))


def test_epochs_trained_again_leave_the_recorded_best_weights(demo_root: Path, tmp_path: Path) -> None:
    """`last.pt` and the one before it are lost: what is trained again is known, and beaten only by what is better."""
    wanted = config(demo_root, epochs=4, optimizer="adamw", lr=0.005, schedule="onecycle")
    data = packs(demo_root, wanted)
    whole = list(fit(TrialInputs(wanted, data, NONE, tmp_path)))
    best = min(whole, key=lambda report: report.metrics["val_loss"])
    kept = best_path(tmp_path, best.epoch)
    before = kept.stat().st_mtime_ns
    for name in (LAST, PREVIOUS):
        (tmp_path / name).write_bytes(b"PK")
    mended = mend_last(tmp_path)
    assert (mended.best_epoch, mended.best_loss) == (best.epoch, best.metrics["val_loss"])
    again = list(
        fit(TrialInputs(wanted, data, NONE, tmp_path, best_epoch=mended.best_epoch, best_loss=mended.best_loss))
    )
    assert numbers(again) == numbers(whole)
    assert kept.stat().st_mtime_ns == before
    assert [path.name for path in tmp_path.glob("best-*")] == [kept.name]


def _worker(rank: int, world: int, root: str, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world)
    wanted = config(Path(root), epochs=2)
    reports = list(fit(TrialInputs(wanted, packs(Path(root), wanted), NONE, Path(folder), 0, Worker(rank, world))))
    (Path(folder) / f"rank{rank}.json").write_text(json.dumps(numbers(reports)))
    leave_together()


@pytest.mark.slow
def test_three_workers_agree_and_count_every_validation_image_once(demo_root: Path, tmp_path: Path) -> None:
    # 32 validation images on three workers: shards of 11, 11 and 10.
    run_workers(_worker, 3, 3, str(demo_root), str(tmp_path))
    found = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(3)]
    assert found[0] == found[1] == found[2]
    table = pq.read_table(max(tmp_path.glob("val-*.parquet")))
    dataset = read_dataset(demo_root)
    assert table["image"].to_pylist() == list(dataset.splits["val"].images)
    labels = dataset.splits["val"].labels
    assert labels is not None
    hits = [
        np.array(table[a.name].to_pylist()).argmax(axis=1) == labels[:, head]
        for head, a in enumerate(dataset.attributes)
    ]
    epoch = int(max(tmp_path.glob("val-*.parquet")).stem.split("-")[1])
    assert np.mean(hits) == pytest.approx(found[0][epoch - 1]["val_accuracy"], abs=1e-12)
