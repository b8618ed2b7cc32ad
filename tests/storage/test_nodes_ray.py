"""A sweep whose storage is a bucket, on nodes without a common disk: each has its own home and cache.

(They read the images from one folder, which stands for a copy on each machine.)
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fashion.record import ranking
from fashion.record.run import Run
from tests.support.machines.ray_nodes import Node, Nodes, launch, wait_until
from tests.support.running import PATIENCE, fashion, one_by_one, start, wait_for_reports
from tests.support.servers.s3_server import Server, s3_server

pytestmark = pytest.mark.ray

TRIAL, WORKER = "ray::ImplicitFunc", "ray::RayTrainWorker"
STORAGE = "s3://sweeps/team"


@pytest.fixture
def server() -> Iterator[Server]:
    with s3_server() as server:
        server.make_bucket("sweeps")
        yield server


class Machines:
    """A cluster and a driver. The driver and each node have folders of their own."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.folder, self.server, self.count = folder, server, 0
        self.nodes = Nodes(folder)
        self.nodes.env.update(server.env)

    def disk(self, name: str) -> dict[str, str]:
        home = self.folder / name
        home.mkdir()
        return {"HOME": str(home), "FASHION_CACHE": str(home / "cache")}

    def add(self) -> Node:
        self.count += 1
        within = ["env", *(f"{name}={value}" for name, value in self.disk(f"node{self.count}").items())]
        return self.nodes.add(within=within)

    def begin(self) -> subprocess.Popen[str]:
        self.env = {**self.nodes.env, **self.disk("driver")}
        return launch(self.folder, "--address", self.nodes.address, env=self.env)

    @property
    def run_path(self) -> Path:
        """The driver's copy of the run."""
        return next((self.folder / "driver" / "cache" / "stored").glob("s-*/journal.jsonl")).parent

    def wait_for_epoch(self, process: subprocess.Popen[str], trial: int, epoch: int) -> None:
        wait_until(lambda: list((self.folder / "driver").glob("cache/stored/s-*/journal.jsonl")), "a journal")
        wait_for_reports(
            process,
            self.run_path / "journal.jsonl",
            lambda found: any((r["trial"], r["epoch"]) >= (trial, epoch) for r in found),
        )


def finish(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, (out, err)
    assert "Traceback" not in out + err
    return out + err


def losses(run: Run) -> dict[tuple[int, int], float]:
    return {(report.trial, report.epoch): report.metrics["val_loss"] for report, _ in run.history}


def undisturbed(folder: Path, text: str) -> Run:
    """The same sweep, undisturbed, on this machine's disk."""
    folder.mkdir()
    (folder / "s.yaml").write_text(
        json.dumps({name: value for name, value in json.loads(text).items() if name != "storage"})
    )
    finish(start(folder, "s.yaml"))
    return Run.open(folder / "runs" / "s")


@pytest.mark.cluster
def test_trials_go_on_from_the_bucket_on_whichever_node_is_left(
    server: Server, tmp_path: Path, demo_root: Path
) -> None:
    text = one_by_one(
        demo_root, trials=3, epochs=8, data={"resize": 192, "crop": 192}, resources={"concurrent_trials": 2}
    )
    text = json.dumps({**json.loads(text), "storage": STORAGE})
    (tmp_path / "s.yaml").write_text(text)
    machines = Machines(tmp_path, server)
    with machines.nodes as nodes:
        all_nodes = [machines.add() for _ in range(3)]
        process = machines.begin()
        machines.wait_for_epoch(process, 1, 2)
        (idle,) = (node for node in all_nodes if not node.processes(TRIAL))
        first, second = (node for node in all_nodes if node is not idle)
        nodes.drain(first, seconds=600)
        wait_until(lambda: not first.processes(TRIAL), "the trial left")
        wait_until(lambda: idle.processes(TRIAL), "a trial on the node that was idle")
        second.kill()
        said = finish(process)
        assert "its machine will be taken away, it goes on elsewhere" in said
        run = Run.open(machines.run_path)
        assert {trial.status for trial in run.trials.values()} == {"completed"}
        assert not list(machines.run_path.glob("trials/*/*.pt"))  # the driver's disk was not theirs
        disk = tmp_path / f"node{all_nodes.index(idle) + 1}"
        assert not list(disk.glob("cache/stored/*/trials/*"))  # all of it is in the bucket
        found = fashion(tmp_path, "best", f"{STORAGE}/s", "--predict", "--split", "val", "--json", "--address",
                        nodes.address, **machines.env)  # fmt: skip
        assert found.returncode == 0, found
    predicted = json.loads(found.stdout)["predictions"]
    winner = ranking.best(run)
    assert predicted["accuracy"] == pytest.approx(winner.metrics["val_accuracy"], abs=1e-12)
    assert server.names("sweeps", "team/s/predictions/val")
    # Predicted on a node, from what it fetched; the driver has it, too.
    assert list(disk.glob("cache/stored/s-*/predictions/val/prediction.txt"))
    assert list((tmp_path / "driver").glob("cache/stored/s-*/predictions/val/prediction.txt"))
    whole = undisturbed(tmp_path / "whole", text)
    assert losses(run) == losses(whole)


@pytest.mark.slow
def test_workers_of_one_trial_on_several_nodes_share_no_disk(server: Server, tmp_path: Path, demo_root: Path) -> None:
    shared = {"workers": 2, "concurrent_trials": 1}
    text = one_by_one(demo_root, trials=2, epochs=10, data={"resize": 192, "crop": 192}, resources=shared)
    text = json.dumps({**json.loads(text), "storage": STORAGE})
    (tmp_path / "s.yaml").write_text(text)
    machines = Machines(tmp_path, server)
    with machines.nodes:
        all_nodes = [machines.add() for _ in range(3)]
        process = machines.begin()
        machines.wait_for_epoch(process, 0, 2)
        next(node for node in all_nodes if node.processes(WORKER)).kill()
        finish(process)
        run = Run.open(machines.run_path)
    assert {trial.status for trial in run.trials.values()} == {"completed"}
    assert {report.attempt for report in run.trials[0].reports} == {1, 2}
    whole = undisturbed(tmp_path / "whole", text)
    assert losses(run) == losses(whole)
