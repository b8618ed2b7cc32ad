"""A spot machine's notice, as the clouds give it, reaches Ray, and trials leave the node without a failure."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fashion.cluster import session, spot
from fashion.cluster.processes import Daemon
from fashion.cluster.spot import Ec2, Gce, Notice, SpotError, find_cloud, find_raylet, watch
from tests.support.machines.ray_nodes import Nodes, launch, wait_until
from tests.support.node_sweeps import TRIAL, finish, wait_for_epoch, write_spec
from tests.support.running import PATIENCE, assert_same, start
from tests.support.servers.metadata import ACTION, PREEMPTED, REBALANCE, Service

NOWHERE = "http://127.0.0.1:9"  # nobody listens on the discard port


@pytest.fixture
def ec2() -> Iterator[Service]:
    with Service() as service:
        yield service


@pytest.fixture
def gce() -> Iterator[Service]:
    with Service("gce") as service:
        yield service


def no_sleep(seconds: float) -> None:
    pass


def here(service: Service) -> Ec2 | Gce:
    return find_cloud(service.environment, no_sleep)


def test_ec2_without_a_notice(ec2: Service) -> None:
    cloud = here(ec2)
    assert isinstance(cloud, Ec2)
    assert cloud.notice() is None
    assert cloud.advice() == ""
    assert ec2.asked == [ACTION, REBALANCE]
    assert len(ec2.tokens) == 1


@pytest.mark.parametrize("action", ["terminate", "stop", "hibernate"])
def test_ec2_gives_notice(ec2: Service, action: str) -> None:
    ec2.announce(120, action)
    notice = here(ec2).notice()
    assert notice is not None
    assert notice.action == action
    assert 115 < notice.time - time.time() <= 120


@pytest.mark.parametrize("text", ["soon", "[]", '{"action": "terminate"}', '{"action": "stop", "time": "tonight"}'])
def test_a_notice_in_other_words_is_a_notice(ec2: Service, text: str) -> None:
    ec2.pages[ACTION] = text
    notice = here(ec2).notice()
    assert notice is not None
    assert 115 < notice.time - time.time() <= 120


def test_a_token_that_has_run_out_is_renewed(ec2: Service) -> None:
    cloud = here(ec2)
    ec2.tokens.clear()
    ec2.announce(60)
    assert cloud.notice() is not None
    assert len(ec2.tokens) == 1


def test_a_recommendation_is_told_and_no_notice(ec2: Service) -> None:
    ec2.pages[REBALANCE] = '{"noticeTime": "2026-01-31T12:00:00Z"}'
    cloud = here(ec2)
    assert cloud.notice() is None
    assert "2026-01-31T12:00:00Z" in cloud.advice()


def test_no_proxy_is_asked(ec2: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, NOWHERE)
    assert here(ec2).notice() is None


def test_compute_engine_gives_notice(gce: Service) -> None:
    cloud = here(gce)
    assert isinstance(cloud, Gce)
    assert cloud.notice() is None
    gce.pages[PREEMPTED] = "TRUE"
    notice = cloud.notice()
    assert notice is not None
    assert 25 < notice.time - time.time() <= 30


def test_another_server_is_no_metadata_service(ec2: Service) -> None:
    ec2.kind = "another"
    ec2.pages[PREEMPTED] = "TRUE"
    with pytest.raises(SpotError, match="no metadata service"):
        here(ec2)


def test_a_machine_without_a_metadata_service_says_so_at_once() -> None:
    away = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": NOWHERE, "GCE_METADATA_HOST": NOWHERE.removeprefix("http://")}
    done = subprocess.run(
        [sys.executable, "-m", "fashion", "spot-watch"], env={**os.environ, **away}, text=True, timeout=60,
        capture_output=True,
    )  # fmt: skip
    assert done.returncode == 2, done
    assert NOWHERE in done.stderr
    assert "no metadata service" in done.stderr
    assert "Traceback" not in done.stderr


def test_it_ends_with_the_node(ec2: Service) -> None:
    said: list[str] = []
    process = subprocess.Popen(["/x/raylet", "60"], executable="/bin/sleep")
    raylet = Daemon(process.pid, ("/x/raylet", "60"))
    wait_until(raylet.alive, "the process is up")
    ec2.broken = True

    def then_it_ends(seconds: float) -> None:
        process.kill()
        process.wait()

    assert watch(Ec2(ec2.address), raylet, said.append, then_it_ends) is None
    assert said == [f"EC2's metadata service: HTTPException: {ACTION}: HTTP 500"]


def test_several_nodes_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [Daemon(number, ("/x/raylet", f"--node_id={number}")) for number in (1, 2)]
    monkeypatch.setattr(spot, "raylets", lambda: nodes)
    with pytest.raises(SpotError, match=r"2 Ray nodes.*--node-id.*1, 2"):
        find_raylet()
    assert find_raylet("2") is nodes[1]
    with pytest.raises(SpotError, match="no Ray node 3 came up"):
        find_raylet("3", seconds=0)


def test_ray_is_asked_until_it_takes_the_notice(ec2: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """The GCS is away for a while: the notice is not lost."""
    answers = iter(["GCS away", "GCS away", ""])
    monkeypatch.setattr(spot, "drain", lambda raylet, notice, message: next(answers))
    mine = Daemon(os.getpid(), tuple(Path("/proc/self/cmdline").read_text().split("\0")[:-1]))
    ec2.announce(100)
    said: list[str] = []
    cloud = here(ec2)
    assert watch(cloud, mine, said.append, no_sleep) == cloud.notice()
    assert [line for line in said if "GCS away" in line] == ["not passed on yet: GCS away"] * 2


def test_a_gcs_that_is_away_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spot, "DRAIN_SECONDS", 5.0)  # Ray's own client tries for 40
    node = "ab" * 28
    raylet = Daemon(1, ("/x/raylet", f"--node_id={node}", "--gcs-address=127.0.0.1:9"))
    assert "127.0.0.1:9" in spot.drain(raylet, Notice("terminate", time.time() + 60), "test")


@pytest.mark.ray
@pytest.mark.cluster
def test_a_notice_moves_the_trial_and_is_no_failure(tmp_path: Path, demo_root: Path) -> None:
    (tmp_path / "alone").mkdir()
    write_spec(tmp_path / "alone", demo_root, trials=2, epochs=8)
    finish(start(tmp_path / "alone", "s.yaml"))
    write_spec(tmp_path, demo_root, trials=2, epochs=8, max_failures=0, max_preemptions=0)
    with Service() as ec2, Nodes(tmp_path) as nodes:
        first, second = nodes.add(), nodes.add()
        watcher = subprocess.Popen(
            [sys.executable, "-m", "fashion", "spot-watch", "--node-id", first.id], text=True,
            env={**nodes.env, **ec2.environment}, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        process = launch(tmp_path, "--address", nodes.address, env=nodes.env)
        wait_for_epoch(process, tmp_path, 1, 1)
        assert first.processes(TRIAL)
        ec2.announce(600)
        _, heard = watcher.communicate(timeout=PATIENCE)
        assert watcher.returncode == 0, heard
        assert "EC2 will terminate this machine in " in heard
        assert "passed on to Ray" in heard
        wait_until(lambda: not first.processes(TRIAL), "the trial left")
        assert process.poll() is None
        assert second.processes(TRIAL)
        said = finish(process)
    assert "its machine will be taken away, it goes on elsewhere" in said
    assert "its process died" not in said
    assert_same(tmp_path / "runs" / "s", tmp_path / "alone" / "runs" / "s")


def test_a_node_that_is_cut_off_is_taken_for_what_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray waits for a GCS that is away without end; a trial must not."""
    answers, away = [{"a": 0}], threading.Event()

    def draining() -> dict[str, int]:
        if not answers:
            away.wait(60)
        return answers.pop()

    monkeypatch.setattr("ray._private.state.state.get_draining_nodes", draining)
    for name, value in {"LOOK_SECONDS": 0.0, "ANSWER_SECONDS": 0.1, "_draining": frozenset(), "_asked": 0.0}.items():
        monkeypatch.setattr(session, name, value)
    monkeypatch.setattr(session, "_asking", None)
    assert [session.leaving(nodes) for nodes in (["a", "b"], ["b"], ["b", "a"])] == [True, False, True]
    answers.append({"b": 0})
    away.set()
    assert session._asking is not None
    session._asking.join(10)
    answers.append({"b": 0})
    assert session.leaving(["b"])
