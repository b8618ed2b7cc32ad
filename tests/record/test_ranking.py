from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from fashion.errors import CheckpointError, RunError
from fashion.files import KernelLock
from fashion.record.promote import promote
from fashion.record.ranking import attribute_table, best, lead, majority_accuracy, ranking
from fashion.record.run import Run
from fashion.record.trial import EpochReport
from fashion.record.trial_files import read_header

ATTRIBUTES = [{"name": "sleeve", "classes": ["none", "short", "long"]}, {"name": "fit", "classes": ["loose", "tight"]}]
MANIFEST: dict[str, Any] = {
    "spec": {},
    "data_fingerprint": "0123456789abcdef",
    "attributes": ATTRIBUTES,
    "label_counts": {"train": [[10, 30, 20], [25, 35]], "val": [[2, 5, 13], [12, 8]]},
}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path, "night", MANIFEST)


def add(run: Run, number: int, *losses: float, accuracy: float = 0.5) -> None:
    run.record_trial(number, {"train": {"lr": 0.1 * number}})
    for epoch, loss in enumerate(losses, start=1):
        metrics = {"val_loss": loss, "val_accuracy": accuracy, "val_accuracy/sleeve": 0.75, "val_accuracy/fit": 0.6}
        run.record_report(EpochReport(number, 1, epoch, 9, metrics, 1.0, ""), "continue")


def save(run: Run, number: int, epoch: int, **changes: Any) -> Path:
    report = next(entry for entry in run.trials[number].reports if entry.epoch == epoch)
    meta = {
        "config": run.trials[number].config,
        "attributes": ATTRIBUTES,
        "data_fingerprint": MANIFEST["data_fingerprint"],
        "report": report.to_json(),
        "format": 1,
        **changes,
    }
    path = run.checkpoint_path(number, epoch)
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = {"heads.0.weight": np.full((3, 5), number, np.float32), "steps": np.array(epoch)}
    save_file(weights, path, {"fashion": json.dumps(meta)})
    return path


def test_ranking_is_by_the_lowest_finite_loss_of_all_epochs(run: Run) -> None:
    add(run, 0, 0.9, 0.5, 0.8)  # its last epoch is not its best
    add(run, 1, 0.6, math.nan)
    add(run, 2, math.nan, math.inf)
    add(run, 3, 0.7, 0.5)  # a tie with trial 0, which has the lower number
    add(run, 4, -math.inf)
    run.record_trial(5, {})
    run.record_end(1, "failed", "diverged")
    assert [(entry.trial, entry.epoch, entry.val_loss) for entry in ranking(run)] == [
        (0, 2, 0.5),
        (3, 2, 0.5),
        (1, 1, 0.6),
    ]
    assert best(run).trial == 0
    assert best(run).config == {"train": {"lr": 0.0}}


def test_nothing_to_rank_is_an_error(run: Run) -> None:
    add(run, 0, math.nan)
    with pytest.raises(RunError, match=r"no trial has reported a finite val_loss \(1 trials recorded\)"):
        best(run)
    with pytest.raises(RunError):
        promote(run)
    assert lead(run) is None


def test_lead_is_positive_where_the_winner_is_better(run: Run) -> None:
    add(run, 0, 0.7, accuracy=0.8)
    assert lead(run) is None
    add(run, 1, 0.4, accuracy=0.75)
    ahead = lead(run)
    assert ahead is not None
    assert ahead.runner_up.trial == 0
    assert ahead.val_loss == pytest.approx(0.3)
    assert ahead.val_accuracy == pytest.approx(-0.05)


def test_attribute_table_has_counts_and_the_training_majority(run: Run) -> None:
    add(run, 0, 0.5)
    sleeve, fit = attribute_table(run.manifest, best(run).metrics)
    # The commonest training class of sleeve is "short", whose validation share is 5/20; "long" is commoner there.
    assert (sleeve.majority_class, sleeve.majority_accuracy, sleeve.images, sleeve.correct) == ("short", 0.25, 20, 15)
    assert (fit.majority_class, fit.majority_accuracy, fit.accuracy, fit.correct) == ("tight", 0.4, 0.6, 12)
    assert sleeve.gain == 0.5
    assert (sleeve.train_counts, sleeve.val_counts) == ((10, 30, 20), (2, 5, 13))
    assert majority_accuracy(run.manifest) == pytest.approx((5 + 8) / 40)


def test_promoted_directory_stands_alone(run: Run) -> None:
    add(run, 0, 0.9, 0.5)
    source = save(run, 0, 2)
    folder = promote(run)
    source.unlink()
    assert folder == run.best_dir
    assert sorted(entry.name for entry in folder.iterdir()) == ["README.md", "model.json", "model.safetensors"]
    meta = json.loads((folder / "model.json").read_text())
    content = (folder / "model.safetensors").read_bytes()
    assert meta["weights"] == {
        "file": "model.safetensors",
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
    }
    assert (meta["trial"], meta["epoch"], meta["metrics"]["val_loss"]) == (0, 2, 0.5)
    assert meta["attributes"] == ATTRIBUTES
    assert meta["config"] == run.trials[0].config
    assert meta["data_fingerprint"] == MANIFEST["data_fingerprint"]
    assert meta["versions"]["torch"]
    with safe_open(folder / "model.safetensors", "numpy") as opened:
        assert opened.get_tensor("heads.0.weight").shape == (3, 5)


def test_promoting_again_replaces_and_clears_what_a_killed_promotion_left(run: Run) -> None:
    add(run, 0, 0.9)
    save(run, 0, 1)
    promote(run)
    add(run, 1, 0.4)
    save(run, 1, 1)
    (run.path / ".best.killed").mkdir()
    (run.path / ".best.killed" / "model.safetensors").write_bytes(b"half")
    promote(run)
    assert json.loads((run.best_dir / "model.json").read_text())["trial"] == 1
    assert not list(run.path.glob(".best*"))
    promote(run, ranking(run)[1])
    assert json.loads((run.best_dir / "model.json").read_text())["trial"] == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"report": {"trial": 7, "epoch": 1}}, "another trial"),
        ({"report": {"trial": 0, "epoch": 2}}, "another epoch"),
        ({"config": {"train": {"lr": 9}}}, "another configuration"),
        ({"data_fingerprint": "fedc"}, "another data fingerprint"),
        ({"report": {}}, "not written by fashion-sweep"),
    ],
)
def test_foreign_checkpoint_is_refused_and_the_promoted_one_stays(
    run: Run, changes: dict[str, Any], message: str
) -> None:
    add(run, 0, 0.9)
    save(run, 0, 1)
    promote(run)
    before = (run.best_dir / "model.json").read_bytes()
    save(run, 0, 1, **changes)
    with pytest.raises(CheckpointError, match=message):
        promote(run)
    assert (run.best_dir / "model.json").read_bytes() == before


def test_missing_checkpoint_is_an_error(run: Run) -> None:
    add(run, 0, 0.9)
    with pytest.raises(CheckpointError, match=r"best-0001\.safetensors: the checkpoint is missing"):
        promote(run)
    assert not run.best_dir.exists()


def test_every_truncation_of_a_checkpoint_is_noticed(run: Run) -> None:
    add(run, 0, 0.9)
    path = save(run, 0, 1)
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError):
            read_header(path)
    path.write_bytes(content + b"x")
    with pytest.raises(CheckpointError, match="grown"):
        read_header(path)
    path.write_bytes(content)
    assert read_header(path)["report"]["trial"] == 0


@pytest.mark.parametrize("content", [b"\xff" * 64, b"PK\x03\x04" + b"\0" * 60, (2).to_bytes(8, "little") + b"[]", b""])
def test_other_files_are_no_checkpoints(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"safetensors|fashion-sweep"):
        read_header(path)


def test_promotion_waits_for_another_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    add(run, 0, 0.9)
    save(run, 0, 1)
    monkeypatch.setattr("fashion.record.promote.LOCK_SECONDS", 0.1)
    with KernelLock(run.path / "best.lock"), pytest.raises(RunError, match="another process"):
        promote(run)
    assert promote(run) == run.best_dir
