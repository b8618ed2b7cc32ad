"""Sweeps that are submitted to a real cluster's job server, left alone, watched again and stopped."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fashion.record.run import Run
from tests.support.machines.ray_nodes import Nodes, free_port, wait_until
from tests.support.running import PATIENCE, one_by_one, recorded_reports
from tests.support.servers.relay import Relay

pytestmark = [pytest.mark.ray, pytest.mark.further, pytest.mark.xdist_group("submit")]

SECONDS = 45  # for what takes a few seconds on an idle machine


class Cluster(Nodes):
    """A head with a job server, and a node of one CPU that trains."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        dashboard = f"--dashboard-port={port}", f"--dashboard-agent-listen-port={free_port()}"
        super().__init__(folder, "--include-dashboard=true", "--dashboard-host=127.0.0.1", *dashboard)
        self.env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{self.env['PATH']}"
        self.dashboard, self.url = port, f"http://127.0.0.1:{port}"

    def start(self, folder: Path, *arguments: str, address: str = "", **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "fashion", *arguments, "--address", address or self.url], cwd=folder, text=True,
            env={**self.env, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    def fashion(
        self, folder: Path, *arguments: str, code: int = 0, address: str = "", **environment: str
    ) -> tuple[str, str]:
        process = self.start(folder, *arguments, address=address, **environment)
        try:
            out, err = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
        assert process.returncode == code, (out, err)
        assert "Traceback" not in err, err
        return out, err


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster")) as found:
        found.add(f"--dashboard-agent-listen-port={free_port()}")
        yield found


def test_a_submitted_sweep_is_followed_to_its_end(cluster: Cluster, tmp_path: Path, demo_root: Path) -> None:
    # The laptop's folder and the cluster's: nothing but the spec is in the first.
    there = tmp_path / "there"
    there.mkdir()
    (there / "data").symlink_to(demo_root)
    text = one_by_one(Path("data"), 2, 3, data={"resize": 36, "crop": 32})
    (tmp_path / "first.yaml").write_text(f"# größer, $HOME `id` 'quoted'\n{text}", encoding="utf-8")
    planted = "planted/aws+secret/9f8e7d6c5b4a"

    out, err = cluster.fashion(
        tmp_path,
        "submit",
        "first.yaml",
        "--folder",
        str(there),
        "--set",
        "train.epochs=2",
        AWS_SECRET_ACCESS_KEY=planted,
    )
    lines = [line.split()[1] for line in out.splitlines() if line[:2] == "20"]
    lines = [word for word in lines if word != "note"]  # that a cluster is being joined, where that takes a while
    assert lines == ["sweep", *["start", "report", "report", "end"] * 2, "done"], (out, err)
    assert "status=completed" in out
    assert "WebSocket" not in err, "Ray's own words"
    assert f"first is done. Recorded in {there}/runs/first." in out
    run = Run.open(there / "runs" / "first")
    assert [len(trial.reports) for trial in run.trials.values()] == [2, 2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first.yaml", "there"]

    out, _ = cluster.fashion(tmp_path, "watch", "first", "--json")
    events = [json.loads(line) for line in out.splitlines()]
    assert [each["event"] for each in events].count("report") == 4

    out, err = cluster.fashion(tmp_path, "submit", "first.yaml", "--folder", str(there), "--set", "train.epochs=2")
    assert "as job first~2" in out
    assert "final=2 epochs_recorded=4" in out
    assert " report " not in out
    assert len(recorded_reports(run.journal_path)) == 4
    out, err = cluster.fashion(tmp_path, "watch")
    assert "final=2" in out
    assert "completed=2" in out
    logs = "".join(path.read_text(errors="replace") for path in cluster.temporary.rglob("*.log"))
    assert planted not in logs


@pytest.mark.cluster
def test_the_laptop_goes_away_and_comes_back(cluster: Cluster, tmp_path: Path, demo_root: Path) -> None:
    storage = tmp_path / "runs"
    journal = storage / "long" / "journal.jsonl"
    (tmp_path / "long.yaml").write_text(one_by_one(demo_root, 2, 40))
    arguments = "submit", "long.yaml", "--storage", str(storage)

    client = cluster.start(tmp_path, *arguments)
    wait_until(lambda: len(recorded_reports(journal)) > 1, "reports", PATIENCE)
    client.send_signal(signal.SIGINT)
    out, err = client.communicate(timeout=SECONDS)
    assert client.returncode == 0, (out, err)
    assert f"Follow it: fashion-sweep watch long --address {cluster.url}" in err
    assert f"Stop it:   fashion-sweep stop long --address {cluster.url}" in err

    _, err = cluster.fashion(tmp_path, *arguments, code=2)
    assert "runs on the cluster already" in err
    assert "fashion-sweep watch long" in err

    client = cluster.start(tmp_path, "watch", "long", "--json")
    assert client.stdout is not None
    client.stdout.readline()
    os.killpg(client.pid, signal.SIGKILL)
    client.communicate()

    watcher = cluster.start(tmp_path, "watch", "long")
    before = len(recorded_reports(journal))
    assert watcher.stdout is not None
    said = ""
    while " report " not in said:
        said = watcher.stdout.readline()
        assert said, watcher.communicate()
    assert len(recorded_reports(journal)) > before, "only what is new is told one by one"
    out, _ = cluster.fashion(tmp_path, "stop", "long")
    assert "long has ended: stopped" in out
    out, err = watcher.communicate(timeout=SECONDS)
    assert watcher.returncode == 130, (out, err)
    assert "long was stopped" in err
    assert "Interrupted. Everything reported is in" in err, "stopped cleanly, not killed"

    stopped = Run.open(storage / "long")
    assert not stopped.trials[0].final
    assert stopped.trials[0].reports[-1].epoch == len(stopped.trials[0].reports)
    out, _ = cluster.fashion(tmp_path, *arguments, "--detach", "--set", "search.trials=2")
    assert "as job long~2" in out
    wait_until(lambda: len(recorded_reports(journal)) > len(stopped.history), "it goes on", PATIENCE)
    cluster.fashion(tmp_path, "stop", "long")
    epochs = [(each["trial"], each["epoch"]) for each in recorded_reports(journal)]
    assert epochs == sorted(set(epochs)), "an epoch was trained twice"


@pytest.mark.slow
def test_a_tunnel_that_breaks_is_told_and_nothing_is_told_twice(
    cluster: Cluster, tmp_path: Path, demo_root: Path
) -> None:
    journal = tmp_path / "runs" / "cut" / "journal.jsonl"
    (tmp_path / "cut.yaml").write_text(one_by_one(demo_root, 1, 60))
    with Relay(cluster.dashboard) as tunnel:
        address = f"127.0.0.1:{tunnel.port}"
        client = cluster.start(tmp_path, "submit", "cut.yaml", "--storage", str(tmp_path / "runs"), address=address)
        wait_until(lambda: len(recorded_reports(journal)) > 1, "reports", PATIENCE)
        tunnel.cut()
        before = len(recorded_reports(journal))
        wait_until(lambda: len(recorded_reports(journal)) > before + 2, "it goes on meanwhile", PATIENCE)
        tunnel.mend()
        out, err = client.communicate(timeout=PATIENCE)
    assert client.returncode == 0, (out, err)
    assert err.count("the connection is lost") == err.count("the connection is back") == 1, err
    epochs = [line.split(" epoch=")[1].split("/")[0] for line in out.splitlines() if " report trial=" in line]
    assert epochs == [str(number) for number in range(1, 61)]


@pytest.mark.slow
def test_what_the_head_refuses_is_told(cluster: Cluster, tmp_path: Path, demo_root: Path) -> None:
    (tmp_path / "s.yaml").write_text(one_by_one(Path("/absent/data")))
    _, err = cluster.fashion(tmp_path, "submit", "s.yaml", "--storage", str(tmp_path / "runs"), code=2)
    assert "/absent/data" in err
    assert "exit code 2" in err
    _, err = cluster.fashion(tmp_path, "watch", "s", code=2)
    assert "/absent/data" in err, "also told of a sweep that ended before"
    _, err = cluster.fashion(tmp_path, "submit", "s.yaml", "--folder", "/absent", "--name", "nowhere", code=2)
    assert "--folder /absent: the head of the cluster has none" in err
    _, err = cluster.fashion(tmp_path, "watch", "nothing", code=2)
    assert "no such sweep" in err
    assert "nowhere" in err
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def wrong_token(tmp_path: Path) -> str:
    path = tmp_path / "wrong"
    path.write_text(secrets.token_hex(32))
    path.chmod(0o600)
    return str(path)


@pytest.mark.parametrize("case", ["wrong token", "no token", "port of another", "nobody"])
def test_a_cluster_that_can_not_be_used_is_told_in_seconds(
    cluster: Cluster, tmp_path: Path, demo_root: Path, wrong_token: str, case: str
) -> None:
    (tmp_path / "s.yaml").write_text(one_by_one(demo_root))
    environment, address, words = {
        "wrong token": ({"RAY_AUTH_TOKEN_PATH": wrong_token}, "", "the cluster refuses the token"),
        "no token": ({"RAY_AUTH_TOKEN_PATH": str(tmp_path / "absent")}, "", "token"),
        "port of another": ({}, cluster.address, "what answers there is not Ray's job server"),
        "nobody": ({}, f"127.0.0.1:{free_port()}", "nobody answers there"),
    }[case]
    began = time.monotonic()
    _, err = cluster.fashion(
        tmp_path, "submit", "s.yaml", "--storage", str(tmp_path / "runs"), code=2, address=address, **environment
    )
    assert time.monotonic() - began < SECONDS
    assert words in err
