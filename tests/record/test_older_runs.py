"""A run that an older version left on disk: read, promoted, gone on with and predicted with.

`recorded_a6fa802` holds what commit a6fa802 left after Ctrl-C: trial 0 completed, 1 was stopped, 2 interrupted after
its second epoch. Left out, since nothing here needs them: the lock, the TensorBoard files, and the weights of trials
1 and 2, neither of which is the best. The manifest's data_root was changed to another absolute path, where no data set
is.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from fashion import open_run
from fashion.data.demo import write_demo
from fashion.data.layout import read_dataset
from fashion.record.trial_files import LAST
from fashion.training.checkpoint import load_state
from tests.support.machines.shared_ray import SharedRay
from tests.support.running import fashion

RECORDED = Path(__file__).with_name("recorded_a6fa802")
WON = 1.1373080648481846  # val_loss of trial 0, epoch 6, as that version recorded it


@pytest.fixture
def folder(machine: Path, tmp_path: Path) -> Path:
    """A folder with a copy of the run, its spec and its data set."""
    shutil.copytree(RECORDED / "old", tmp_path / "runs" / "old")
    shutil.copy(RECORDED / "old.yaml", tmp_path)
    write_demo(tmp_path / "data", train=96, val=32, test=24, size=48)
    return tmp_path


def shown(folder: Path) -> dict[int, str]:
    done = fashion(folder, "show", "old", "--json")
    assert done.returncode == 0, done.stderr
    return {row["trial"]: row["status"] for row in json.loads(done.stdout)["recorded"]}


def test_it_is_listed_shown_and_promoted(folder: Path) -> None:
    (listed,) = json.loads(fashion(folder, "ls", "--json").stdout)
    assert (listed["run"], listed["trials"], listed["counts"]["completed"]) == ("old", 4, 1)
    assert shown(folder) == {0: "completed", 1: "stopped", 2: "interrupted"}
    done = fashion(folder, "best", "old", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["metrics"]["val_loss"] == WON


def test_its_checkpoint_is_read_and_its_data_set_is_known(folder: Path) -> None:
    manifest = json.loads((folder / "runs/old/manifest.json").read_text())
    assert read_dataset(folder / "data").fingerprint() == manifest["data_fingerprint"]
    state = load_state(folder / "runs/old/trials/0002" / LAST)
    assert (state.at, state.attempt, state.fingerprint) == ((2, 0), 1, manifest["data_fingerprint"])
    assert state.config.data.resize == 32


@pytest.mark.ray
@pytest.mark.further
@pytest.mark.xdist_group("shared-ray-2")
def test_it_goes_on_where_it_stopped(folder: Path, shared_ray: SharedRay) -> None:
    done = fashion(folder, "run", "old.yaml", "--plain", **shared_ray.joining)
    assert done.returncode == 0, done.stdout + done.stderr
    assert shown(folder)[2] in ("completed", "stopped")
    went_on = [line.split("trial=")[1].split("/")[0] for line in done.stdout.splitlines() if " report trial=" in line]
    assert went_on[0] == "2 epoch=3"
    # What that version did not record is recorded now.
    assert open_run(folder / "runs/old").predictions().labels_missing == ""
    assert (folder / "runs/old/val-labels.parquet").exists()
    done = fashion(folder, "best", "old", "--predict")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (folder / "runs/old/predictions/test/prediction.txt.zip").exists()
