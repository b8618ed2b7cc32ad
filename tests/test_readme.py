"""Every command in the README runs as it is written there, and `make quickstart` keeps its promise."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from fashion.cli.main import COMMANDS
from fashion.data.convert.demo_labels import write_label_demo
from fashion.data.demo import write_demo
from fashion.data.layout import majority_baseline, read_dataset
from fashion.record import ranking
from fashion.record.run import Run
from fashion.sweep.drafts.draft import marker
from tests.support.machines.programs import BIN, PATH
from tests.support.machines.shared_ray import SharedRay

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 500
ON_A_CLUSTER = {"submit", "watch", "stop"}  # run in test_submit_ray.py


def shown(text: str) -> list[str]:
    """The commands in the README's code blocks, without comments."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, flags=re.M | re.S)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith(("fashion-sweep ", "make "))]


def test_the_readme_shows_every_command() -> None:
    lines = shown((ROOT / "README.md").read_text())
    assert set(COMMANDS) <= {line.split()[1] for line in lines}
    assert "make quickstart" in lines


def rows(archive: Path) -> int:
    """How many lines the one file in a submission's archive has."""
    with zipfile.ZipFile(archive) as file:
        assert file.namelist() == ["prediction.txt"]
        return len(file.read("prediction.txt").splitlines())


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the README's commands find the files that they name.

    The data sets are small drawn ones. The two specs that the README runs need a GPU and ImageNet weights, so small
    sweeps of the same names stand in for them, and for the one that is drafted. All others are the shipped ones.
    """
    folder = tmp_path_factory.mktemp("readme")
    write_demo(folder / "data" / "FashionDataset", train=96, val=32, test=24, size=48)
    shutil.copytree(ROOT / "sweeps", folder / "sweeps")
    for name, root in (("backbones", "data/FashionDataset"), ("lr", "data/FashionDataset"), ("labels", "labels.csv")):
        small = {
            "name": name,
            "data": {"root": root, "resize": 36, "crop": 32},
            "model": {"backbone": "tiny", "weights": "none"},
            "train": {"epochs": 2, "optimizer": "adamw", "lr": {"loguniform": [0.001, 0.01]}},
            "search": {"trials": 2},
        }
        (folder / "sweeps" / f"{name}.yaml").write_text(json.dumps(small))
    drafted = folder / "sweeps" / "labels.yaml"
    (folder / "labels.yaml").write_text(f"{marker('labels.csv')}\n{drafted.read_text()}")
    drafted.unlink()  # the README checks sweeps/*.yaml
    write_label_demo(folder / "people", 96, size=48)
    for part in ("labels.csv", "img"):
        (folder / "people" / part).rename(folder / part)
    (folder / "photos").mkdir()
    for number, mode in enumerate(("RGB", "L", "RGBA")):
        Image.new(mode, (60 + number, 40)).save(folder / "photos" / f"{number}.png")
    return folder


@pytest.mark.slow
@pytest.mark.xdist_group("shared-ray-2")
@pytest.mark.ray
def test_every_command_of_the_readme_runs(workspace: Path, shared_ray: SharedRay) -> None:
    environment = {**os.environ, **shared_ray.joining, "PATH": PATH}
    commands = [line for line in shown((ROOT / "README.md").read_text()) if line.startswith("fashion-sweep ")]
    commands = [line for line in commands if line.split()[1] not in ON_A_CLUSTER]
    assert len(commands) > 8
    for command in commands:
        done = subprocess.run(
            ["bash", "-c", command], cwd=workspace, env=environment, capture_output=True, text=True, timeout=PATIENCE
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr, (command, done.stderr)
    assert json.loads((workspace / "spec.schema.json").read_text())["title"]
    runs = workspace / "runs"
    assert Run.open(runs / "lr-short").trials[0].reports[0].epochs == 5
    assert rows(runs / "backbones" / "predictions" / "test" / "prediction.txt.zip") == 24
    assert (runs / "lr-short" / "predictions" / "images-photos" / "prediction.txt").read_text().count("\n") == 3


@pytest.mark.further
@pytest.mark.xdist_group("doctor-nodes")  # of a large group, since those without one come last, when cores lie idle
@pytest.mark.ray
def test_make_quickstart_beats_the_majority_by_far(tmp_path: Path) -> None:
    """The Makefile's own recipe in an empty folder, with this environment in place of a new one."""
    for name in ("Makefile", "setup.cfg", "setup.py", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "fashion-sweep").symlink_to(BIN / "fashion-sweep")
    (tmp_path / ".venv" / "ready").touch()
    shutil.copytree(ROOT / "sweeps", tmp_path / "sweeps")
    done = subprocess.run(["make", "quickstart"], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, (done.stdout, done.stderr)
    run = Run.open(tmp_path / "runs" / "quickstart")
    winner = ranking.best(run)
    majority = majority_baseline(read_dataset(tmp_path / "data" / "demo")).overall
    assert winner.metrics["val_accuracy"] > majority + 0.25
    archive = run.predictions_dir / "test" / "prediction.txt.zip"
    assert str(archive.relative_to(tmp_path)) in done.stdout
    assert rows(archive) == 150
