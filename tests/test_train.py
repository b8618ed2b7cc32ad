"""The training loop: it learns, repeats itself to the last bit, resumes after any epoch, and leaves whole files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from fashion import checkpoint, train
from fashion.config import TrialConfig
from fashion.data.demo import write_demo
from fashion.data.layout import read_dataset
from fashion.data.pack import Pack
from fashion.data.stats import majority_baseline
from fashion.errors import CheckpointError, TrialDiverged
from fashion.model.build import build_model
from fashion.model.table import row
from fashion.model.weights import ResolvedWeights
from fashion.record import EpochReport
from fashion.train import Place, TrainingData, fit, use_bf16

NO_WEIGHTS = ResolvedWeights("none")
ADAMW: dict[str, Any] = {"optimizer": "adamw", "lr": 0.004, "schedule": "onecycle", "ema": 0.9}
SGD: dict[str, Any] = {"optimizer": "sgd", "lr": 0.05, "schedule": "cosine", "warmup_epochs": 1.5, "clip_grad": 5.0}


def configured(root: Path, seed: int = 3, dropout: float = 0.1, **options: Any) -> TrialConfig:
    """A trial of 3 epochs at 32 px with every random step in it: crop, flip, jitter, erasing, dropout."""
    sections: dict[str, Any] = {
        "data": {"root": str(root), "resize": 36, "crop": 32, "crop_mode": "random", "jitter": 0.2, "erase": 0.2},
        "model": {"backbone": "tiny", "weights": "none", "dropout": dropout},
        "train": {"epochs": 3, "batch_size": 16, "precision": "fp32", **options},
    }
    return TrialConfig.model_validate({**sections, "seed": seed})


def opened(root: Path, size: int = 36) -> TrainingData:
    dataset = read_dataset(root)
    train_pack, val_pack = (Pack.open_or_build(dataset, split, size) for split in ("train", "val"))
    return TrainingData(train_pack, val_pack, dataset.attributes, dataset.fingerprint())


def numbers(reports: list[EpochReport]) -> list[dict[str, float]]:
    return [report.metrics for report in reports]


def state_of(folder: Path) -> dict[str, Tensor]:
    """The weights that the trial ended with, raw ones and averaged ones."""
    last = checkpoint.load_last(folder / checkpoint.LAST)
    averaged = {f"ema {name}": value for name, value in (last["ema"] or {}).items()}
    return {**last["model"], **averaged}


def same_state(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An odd number of validation images, so that two workers get uneven shards."""
    return write_demo(tmp_path_factory.mktemp("small") / "demo", train=64, val=33, test=8, size=36)


@pytest.fixture(scope="module")
def data(root: Path) -> TrainingData:
    return opened(root)


def test_it_learns(tmp_path: Path) -> None:
    root = write_demo(tmp_path / "demo", train=256, val=64, test=8, size=48)
    sections = {
        "data": {"root": str(root), "resize": 48, "crop": 48},
        "model": {"backbone": "tiny", "weights": "none", "dropout": 0.0},
        "train": {"epochs": 7, "batch_size": 16, "optimizer": "adamw", "lr": 0.006, "schedule": "onecycle"},
        "seed": 1,
    }
    reports = list(fit(TrialConfig.model_validate(sections), opened(root, 48), NO_WEIGHTS, tmp_path / "trial"))
    baseline = majority_baseline(read_dataset(root)).overall
    assert [report.epoch for report in reports] == list(range(1, 8))
    assert reports[-1].metrics["train_loss"] < 0.7 * reports[0].metrics["train_loss"]
    assert reports[-1].metrics["val_accuracy"] > baseline + 0.04


@pytest.mark.parametrize("recipe", [ADAMW, SGD], ids=["adamw-onecycle-ema", "sgd-cosine-warmup"])
def test_resuming_after_any_epoch_equals_the_undisturbed_run(
    root: Path, data: TrainingData, tmp_path: Path, recipe: dict[str, Any]
) -> None:
    config, whole = configured(root, **recipe), tmp_path / "whole"
    undisturbed = []
    for report in fit(config, data, NO_WEIGHTS, whole, trial=7):
        undisturbed.append(report)
        shutil.copytree(whole, tmp_path / f"killed-{report.epoch}")  # what a kill at this moment leaves
    assert [report.trial for report in undisturbed] == [7, 7, 7]
    for epoch in (1, 2, 3):
        folder = tmp_path / f"killed-{epoch}"
        torch.manual_seed(epoch)  # what the process did before must not matter
        torch.rand(5)
        resumed = list(fit(config, data, NO_WEIGHTS, folder, trial=7))
        assert resumed[:epoch] == undisturbed[:epoch]  # re-yielded, times included
        assert numbers(resumed) == numbers(undisturbed)
        assert [report.attempt for report in resumed] == [1] * epoch + [2] * (3 - epoch)
        assert same_state(state_of(folder), state_of(whole))
        best = min(undisturbed, key=lambda report: report.metrics["val_loss"]).epoch
        weights = [load_file(checkpoint.best_path(place, best)) for place in (folder, whole)]
        assert same_state(*weights)
        predictions = [checkpoint.predictions_path(place, best).read_bytes() for place in (folder, whole)]
        assert predictions[0] == predictions[1]


def test_a_kill_between_the_files_of_an_epoch_loses_nothing(root: Path, data: TrainingData, tmp_path: Path) -> None:
    config, whole, killed = configured(root, **ADAMW), tmp_path / "whole", tmp_path / "killed"
    reports = []
    for report in fit(config, data, NO_WEIGHTS, whole):
        reports.append(report)
        if report.epoch == 1:
            shutil.copytree(whole, killed)
        if report.epoch == 2:  # the best weights are there, the resumable state is still the first epoch's
            for path in (checkpoint.best_path(whole, 2), checkpoint.predictions_path(whole, 2)):
                shutil.copy(path, killed) if path.exists() else None
            (killed / ".last.pt.1.tmp").write_bytes(b"half")
    assert numbers(list(fit(config, data, NO_WEIGHTS, killed))) == numbers(reports)
    assert same_state(state_of(killed), state_of(whole))


def test_the_previous_best_stays_until_the_report_is_taken(root: Path, data: TrainingData, tmp_path: Path) -> None:
    def kept() -> list[int]:
        found = sorted(int(path.stem.removeprefix("best-")) for path in tmp_path.glob("best-*.safetensors"))
        assert sorted(int(path.stem.removeprefix("val-")) for path in tmp_path.glob("val-*.parquet")) == found
        return found

    lowest, best, improvements = float("inf"), 0, 0
    for report in fit(configured(root, epochs=5, **ADAMW), data, NO_WEIGHTS, tmp_path):
        saved = checkpoint.load_last(tmp_path / checkpoint.LAST)
        assert EpochReport.from_json(saved["history"][-1]) == report  # resumable before it is known to anybody
        if report.metrics["val_loss"] < lowest:
            improvements += 1
            assert kept() == sorted({best, report.epoch} - {0})
            lowest, best = report.metrics["val_loss"], report.epoch
        else:
            assert kept() == [best]
    assert improvements >= 2  # or nothing was tested
    assert kept() == [best]
    assert not list(tmp_path.glob(".*"))


def test_validation_predictions_reproduce_the_recorded_metrics(root: Path, data: TrainingData, tmp_path: Path) -> None:
    reports = list(fit(configured(root, **SGD), data, NO_WEIGHTS, tmp_path))
    best = min(reports, key=lambda report: report.metrics["val_loss"])
    table = pq.read_table(checkpoint.predictions_path(tmp_path, best.epoch))
    labels = data.val.labels
    assert labels is not None
    assert table.column("image").to_pylist() == data.val.names
    right, losses = [], []
    for head, name in enumerate(data.names):
        probabilities = np.array(table.column(name).to_pylist())
        assert probabilities.shape == (33, data.class_counts[head])
        right.append(probabilities.argmax(1) == labels[:, head])
        losses.append(-np.log(probabilities[np.arange(33), labels[:, head]]))
        assert best.metrics[f"val_accuracy/{name}"] == right[-1].sum() / 33
    assert best.metrics["val_accuracy"] == np.sum(right) / np.size(right)
    assert best.metrics["val_exact_match"] == np.all(right, axis=0).sum() / 33
    assert best.metrics["val_loss"] == pytest.approx(np.mean(losses), rel=1e-5)


def test_the_same_seed_gives_the_same_numbers_another_seed_others(
    root: Path, data: TrainingData, tmp_path: Path
) -> None:
    runs = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        torch.manual_seed(len(name) + seed)
        runs.append(numbers(list(fit(configured(root, seed, epochs=1, **ADAMW), data, NO_WEIGHTS, tmp_path / name))))
    assert runs[0] == runs[1]
    assert runs[0][0]["train_loss"] != runs[2][0]["train_loss"]


def test_what_a_report_holds_and_steps_that_are_told(root: Path, data: TrainingData, tmp_path: Path) -> None:
    told: list[tuple[int, int, int]] = []
    config = configured(root, epochs=2, lr=0.01, schedule="constant")
    reports = list(fit(config, data, NO_WEIGHTS, tmp_path, on_step=lambda *step: told.append(step)))
    assert told == [(epoch, step, 4) for epoch in (1, 2) for step in (1, 2, 3, 4)]
    expected = {"train_loss", "train_accuracy", "lr"}
    expected |= {f"val_{name}" for name in ("loss", "loss_report", "accuracy", "balanced_accuracy", "exact_match")}
    expected |= {f"val_accuracy/{name}" for name in data.names}
    assert set(reports[0].metrics) == expected
    assert reports[0].metrics["lr"] == 0.01
    assert [(report.epochs, report.progress) for report in reports] == [(2, 0.5), (2, 1.0)]


def test_a_frozen_backbone_is_left_as_it_was(root: Path, data: TrainingData, tmp_path: Path) -> None:
    config = configured(root, epochs=2, freeze_backbone=True, lr=0.1)
    list(fit(config, data, NO_WEIGHTS, tmp_path))
    torch.manual_seed(config.seed)
    before = build_model(config.model, data.class_counts, NO_WEIGHTS).state_dict()
    after = state_of(tmp_path)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if name.startswith("heads.")}


@pytest.mark.parametrize("batch_size", [2, 16])
def test_a_trial_that_diverges_says_where(root: Path, data: TrainingData, tmp_path: Path, batch_size: int) -> None:
    # Each step multiplies the weights by about -1000; small batches meet the check within the epoch.
    config = configured(root, lr=100.0, weight_decay=10.0, momentum=0.0, epochs=30, batch_size=batch_size)
    reports = []
    with pytest.raises(TrialDiverged, match=r"epoch \d+.*: (train|val)_loss is (nan|inf)") as caught:
        reports.extend(fit(config, data, NO_WEIGHTS, tmp_path))
    assert ("step 20" in str(caught.value)) == (batch_size == 2)
    assert all(np.isfinite(report.metrics["val_loss"]) for report in reports)
    if (tmp_path / checkpoint.LAST).exists():  # what is saved is from before
        assert len(checkpoint.load_last(tmp_path / checkpoint.LAST)["history"]) < 30


def test_a_checkpoint_of_another_configuration_or_data_set_is_refused(
    root: Path, data: TrainingData, tmp_path: Path
) -> None:
    config = configured(root, epochs=1)
    list(fit(config, data, NO_WEIGHTS, tmp_path))
    with pytest.raises(CheckpointError, match="another configuration"):
        list(fit(configured(root, epochs=1, lr=0.01), data, NO_WEIGHTS, tmp_path))
    changed = TrainingData(data.train, data.val, data.attributes, "0123456789abcdef")
    with pytest.raises(CheckpointError, match="another configuration or data set"):
        list(fit(config, changed, NO_WEIGHTS, tmp_path))
    assert [report.epoch for report in fit(config, data, NO_WEIGHTS, tmp_path)] == [1]  # and left as it was


def test_a_truncated_checkpoint_is_refused(root: Path, data: TrainingData, tmp_path: Path) -> None:
    config, last = configured(root, epochs=1), tmp_path / checkpoint.LAST
    list(fit(config, data, NO_WEIGHTS, tmp_path))
    last.write_bytes(last.read_bytes()[:-200])
    with pytest.raises(CheckpointError, match="Delete it to start this trial again"):
        list(fit(config, data, NO_WEIGHTS, tmp_path))


def test_precision_is_as_told(root: Path) -> None:
    cpu = torch.device("cpu")
    for name, expected in (("fp32", False), ("bf16", True)):
        config = TrialConfig.model_validate(
            {**configured(root).model_dump(), "train": {"epochs": 1, "precision": name}}
        )
        assert use_bf16(config, row("tiny"), cpu) is expected
    auto = TrialConfig.model_validate({**configured(root).model_dump(), "train": {"epochs": 1}})
    assert use_bf16(auto, row("tiny"), cpu) in (False, row("tiny").cpu_bf16)


def _broken_on_rank_0(rank: int, step: int) -> None:
    """From now on the objective of rank 0 alone is NaN at the given step."""
    build, calls = train.build_loss, iter(range(1, 1000))

    def build_broken(*arguments: Any) -> Any:
        loss = build(*arguments)
        return lambda logits, targets: loss(logits, targets) * (float("nan") if next(calls) == step else 1.0)

    if rank == 0:
        train.build_loss = build_broken
    train.DIVERGENCE_CHECK_STEPS = step


def _worker(rank: int, root: Path, folder: Path) -> None:
    """Everything that needs two processes, in one pair of them: starting them takes the time."""
    torch.set_num_threads(1)
    meeting = f"file://{folder}/meeting"
    torch.distributed.init_process_group(
        "gloo", init_method=meeting, rank=rank, world_size=2, timeout=timedelta(seconds=120)
    )
    data, place, found = opened(root), Place(rank, 2), {}

    def run(name: str, config: TrialConfig) -> Iterator[EpochReport]:
        return fit(config, data, NO_WEIGHTS, folder / name, place=place)

    for name, config in _shared_trials(root).items():
        found[name] = numbers(list(run(name, config)))
    config = _shared_trials(root)["averaged"]
    next(run("resumed", config))
    torch.distributed.barrier()
    found["resumed"] = numbers(list(run("resumed", config)))
    _broken_on_rank_0(rank, step=3)
    try:
        list(run("diverged", config))
    except TrialDiverged as error:
        found["diverged"] = [{str(error): 0.0}]
    (folder / f"{rank}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


def _shared_trials(root: Path) -> dict[str, TrialConfig]:
    return {
        # No batch statistics and no dropout: nothing that depends on how a batch is split.
        "frozen": configured(root, dropout=0.0, epochs=2, batch_size=15, freeze_backbone=True, lr=0.1),
        "averaged": configured(root, dropout=0.0, epochs=2, batch_size=15, **ADAMW),
    }


def test_two_workers_agree_with_each_other_and_with_one(root: Path, data: TrainingData, tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_worker, (root, tmp_path), nprocs=2)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == second  # every metric, and the reason for which the last one was given up
    assert list(first["diverged"][0]) == ["epoch 1, step 3: train_loss is nan"]
    assert first["resumed"] == first["averaged"]
    for name, config in _shared_trials(root).items():
        alone = numbers(list(fit(config, data, NO_WEIGHTS, tmp_path / f"{name}-alone")))
        tolerance = 1e-5 if name == "frozen" else 0.1
        for one, two in zip(alone, first[name], strict=True):
            assert two["train_loss"] == pytest.approx(one["train_loss"], rel=tolerance)
            assert two["lr"] == one["lr"]
            assert name != "frozen" or two["val_loss"] == pytest.approx(one["val_loss"], rel=1e-5)
    folder = tmp_path / "averaged"
    best = min(range(2), key=lambda index: first["averaged"][index]["val_loss"])
    table = pq.read_table(checkpoint.predictions_path(folder, best + 1))
    assert table.column("image").to_pylist() == data.val.names  # uneven shards, put back into the file's order
    assert data.val.labels is not None
    right = [
        (np.array(table.column(name).to_pylist()).argmax(1) == data.val.labels[:, head]).sum()
        for head, name in enumerate(data.names)
    ]
    assert sum(right) / (33 * len(right)) == first["averaged"][best]["val_accuracy"]
