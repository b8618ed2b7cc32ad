"""Nodes are added, lost, drained and cut off while the real command runs a sweep on them."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.support.machines.networks import Network
from tests.support.machines.ray_nodes import Node, Nodes, launch, wait_until
from tests.support.node_sweeps import NOTHING, TRIAL, attempts, finish, undisturbed, wait_for_epoch, write_spec
from tests.support.running import assert_same, wait_for_reports

pytestmark = [pytest.mark.ray, pytest.mark.further, pytest.mark.xdist_group("cluster-nodes")]

WORKER = "ray::RayTrainWorker"


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, demo_root: Path) -> Path:
    """Four trials of one worker that nothing disturbed."""
    return undisturbed(tmp_path_factory.mktemp("alone"), demo_root, trials=4, epochs=8)


@pytest.mark.cluster
def test_a_node_is_added_and_one_is_lost(tmp_path: Path, demo_root: Path) -> None:
    """With so many trials that some are left when the second node has joined, which takes seconds."""
    write_spec(tmp_path, demo_root, trials=8, epochs=8)
    with Nodes(tmp_path) as nodes:
        first = nodes.add()
        process = launch(tmp_path, "--address", nodes.address, env=nodes.env)
        wait_for_epoch(process, tmp_path, 0, 1)
        second = nodes.add()
        wait_until(lambda: second.processes(TRIAL), "a trial on the new node")
        wait_for_epoch(process, tmp_path, 1, 1)
        first.kill()
        said = finish(process)
        assert "room for 2 trial(s) at once now, 1 before" in said
        assert "room for 1 trial(s) at once now, 2 before" in said
        assert nodes.left() == NOTHING
    assert_same(tmp_path / "runs" / "s", undisturbed(tmp_path / "alone", demo_root, trials=8, epochs=8))
    assert sorted(map(len, attempts(tmp_path / "runs" / "s").values())) == [1] * 7 + [2]


@pytest.mark.faults
def test_trials_leave_a_node_that_drains(tmp_path: Path, demo_root: Path, alone: Path) -> None:
    write_spec(tmp_path, demo_root, trials=4, epochs=8, max_failures=0)
    with Nodes(tmp_path) as nodes:
        first, second = nodes.add(), nodes.add()
        process = launch(tmp_path, "--address", nodes.address, env=nodes.env)
        wait_for_epoch(process, tmp_path, 1, 1)
        nodes.drain(first, seconds=600)
        wait_until(lambda: not first.processes(TRIAL), "the trial left")
        assert process.poll() is None
        assert second.processes(TRIAL)
        said = finish(process)
        assert nodes.left() == NOTHING
    assert "its machine will be taken away, it goes on elsewhere" in said
    assert "its process died" not in said
    assert_same(tmp_path / "runs" / "s", alone)


@pytest.mark.faults
def test_a_worker_group_leaves_a_node_that_drains_and_loses_another(tmp_path: Path, demo_root: Path) -> None:
    whole = undisturbed(tmp_path / "whole", demo_root, trials=2, epochs=6, workers=2)
    # Neither a drained node nor a lost one is a failure of the trial.
    write_spec(tmp_path, demo_root, trials=2, epochs=6, workers=2, concurrent_trials=1, max_failures=0)
    with Nodes(tmp_path) as nodes:
        for _ in range(3):
            nodes.add()
        process = launch(tmp_path, "--address", nodes.address, env=nodes.env)
        wait_for_epoch(process, tmp_path, 0, 1)
        drained = with_worker(nodes)
        nodes.drain(drained, seconds=600)
        wait_until(lambda: not drained.processes(WORKER), "the group left")
        nodes.add()
        wait_for_epoch(process, tmp_path, 0, 4)
        with_worker(nodes).kill()
        finish(process)
        assert nodes.left() == NOTHING
    assert_same(tmp_path / "runs" / "s", whole)


def with_worker(nodes: Nodes) -> Node:
    return next(node for node in nodes.nodes if node.processes(WORKER))


@pytest.mark.faults
def test_a_node_that_is_cut_off_writes_no_more(tmp_path: Path, demo_root: Path, alone: Path) -> None:
    """The trial goes on elsewhere while its old process still runs, on the same disk, without knowing of it."""
    write_spec(tmp_path, demo_root, trials=4, epochs=8)
    journal = tmp_path / "runs" / "s" / "journal.jsonl"
    with Network(3) as network, Nodes(tmp_path, at(network, 0), within=network.inside(0)) as nodes:
        first = nodes.add(at(network, 1), within=network.inside(1))
        process = launch(tmp_path, "--address", nodes.address, env=nodes.env, within=network.inside(0)
        )  # fmt: skip
        wait_for_epoch(process, tmp_path, 0, 2)
        (victim,) = first.processes(TRIAL)
        time.sleep(0.4)  # Tune's answer to the report has come, or it would wait for that
        os.kill(victim, signal.SIGSTOP)  # somewhere in an epoch, which takes a second
        network.cut(1)
        nodes.add(at(network, 2), within=network.inside(2))
        wait_for_reports(process, journal, lambda found: any(report["attempt"] == 2 for report in found))
        os.kill(victim, signal.SIGCONT)
        wait_until(lambda: not Path(f"/proc/{victim}").exists(), "the old process ended")
        finish(process)
    assert_same(tmp_path / "runs" / "s", alone)
    assert attempts(tmp_path / "runs" / "s") == {0: {1, 2}, 1: {1}, 2: {1}, 3: {1}}


def at(network: Network, number: int) -> str:
    return f"--node-ip-address={network.address(number)}"
