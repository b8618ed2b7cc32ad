"""A run that an older version left in a bucket: read, gone on with and predicted with.

`bucket_a6fa802` holds what commit a6fa802 put there until Ctrl-C: trial 0 completed, 1 was stopped, 2 interrupted after
its second epoch. The stopped trial's weights and the TensorBoard files, which nothing here needs, were left out.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fashion.data.demo import write_demo
from tests.support.running import fashion
from tests.support.servers.s3_server import Server

RECORDED = Path(__file__).with_name("bucket_a6fa802")
SPEC = Path(__file__).with_name("bucket_a6fa802.yaml")
STORAGE = "s3://sweeps/team"
WON = 1.1373080648481846  # val_loss of trial 0, epoch 6, as that version recorded it


@pytest.fixture
def folder(s3: Server, machine: Path, tmp_path: Path) -> Path:
    """A machine that has never seen the run: the bucket, the data set and the spec."""
    for path in RECORDED.rglob("*"):
        if path.is_file():
            s3.write("sweeps", f"team/old/{path.relative_to(RECORDED)}", path.read_bytes())
    write_demo(tmp_path / "data", train=96, val=32, test=24, size=48)
    (tmp_path / "old.yaml").write_text(SPEC.read_text())
    return tmp_path


def shown(folder: Path) -> dict[int, str]:
    done = fashion(folder, "show", f"{STORAGE}/old", "--json")
    assert done.returncode == 0, done.stderr
    return {row["trial"]: row["status"] for row in json.loads(done.stdout)["recorded"]}


def test_it_is_listed_shown_and_promoted(folder: Path, s3: Server) -> None:
    done = fashion(folder, "ls", "--storage", STORAGE, "--json")
    (listed,) = json.loads(done.stdout)
    assert (listed["run"], listed["trials"], listed["counts"]["completed"]) == ("old", 3, 1)
    assert shown(folder) == {0: "completed", 1: "stopped", 2: "interrupted"}
    done = fashion(folder, "best", f"{STORAGE}/old", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["metrics"]["val_loss"] == WON
    assert "team/old/best/model.safetensors" in s3.names("sweeps")


@pytest.mark.ray
@pytest.mark.slow
def test_it_goes_on_where_it_stopped(folder: Path, s3: Server) -> None:
    done = fashion(folder, "run", "old.yaml", "--plain")
    assert done.returncode == 0, done.stdout + done.stderr
    assert shown(folder)[2] in ("completed", "stopped")
    went_on = [line.split("trial=")[1].split("/")[0] for line in done.stdout.splitlines() if " report trial=" in line]
    assert went_on[0] == "2 epoch=3"
    assert went_on == [f"2 epoch={epoch}" for epoch in range(3, 3 + len(went_on))]
    done = fashion(folder, "best", f"{STORAGE}/old", "--predict")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "team/old/predictions/test/prediction.txt.zip" in s3.names("sweeps")
