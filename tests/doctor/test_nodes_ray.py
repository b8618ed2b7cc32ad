"""`fashion-sweep doctor --address` on real nodes: healthy ones, and one whose environment differs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import fashion
from fashion.doctor.diagnosis import HERE
from tests.support.machines.ray_nodes import PATIENCE, Node, Nodes

pytestmark = [pytest.mark.ray, pytest.mark.further, pytest.mark.xdist_group("doctor-nodes")]


def examined(folder: Path, address: str, env: Mapping[str, str], code: int) -> list[dict[str, Any]]:
    """What `doctor s.yaml --json` finds on the cluster; it must end with this exit code."""
    done = subprocess.run(
        [sys.executable, "-m", "fashion", "doctor", "s.yaml", "--address", address, "--json"],
        cwd=folder, env=env, capture_output=True, text=True, timeout=2 * PATIENCE,
    )  # fmt: skip
    assert done.returncode == code, done
    assert "Traceback" not in done.stderr, done
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def wrong(found: list[dict[str, Any]], node: Node, cluster: Nodes) -> list[dict[str, Any]]:
    """The checks that failed. All are of this node alone, and each says how to mend it. (Ray takes a killed node for
    alive until it has missed a few heartbeats.)"""
    killed = len(cluster.nodes) - len(living := alive(cluster))
    bad = [
        each
        for each in found
        if not each["ok"] and (not killed or any(name in each["node"] for name in {*living, HERE}))
    ]
    assert all(node.id[:8] in each["node"] and each["fix"] for each in bad), bad
    return bad


def alive(cluster: Nodes) -> set[str]:
    return {node.id[:8] for node in cluster.nodes if node.process.poll() is None}


@pytest.fixture
def folder(tmp_path: Path, demo_root: Path) -> Path:
    spec = {
        "data": {"root": str(demo_root), "resize": 36, "crop": 32},
        "model": {"backbone": "tiny", "weights": "none"},
        "train": {"epochs": 2},
    }
    (tmp_path / "s.yaml").write_text(json.dumps(spec))
    return tmp_path


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with Nodes(tmp_path_factory.mktemp("cluster")) as nodes:
        nodes.add()
        yield nodes


@contextmanager
def another(cluster: Nodes, *options: str, **environment: str) -> Iterator[Node]:
    """A node with other options or another environment, for as long as the `with` block runs."""
    usual = cluster.env
    cluster.env = {**usual, **environment}
    try:
        node = cluster.add(*options)
    finally:
        cluster.env = usual
    try:
        yield node
    finally:
        node.kill()


def test_nodes_that_are_well(cluster: Nodes, folder: Path) -> None:
    found = examined(folder, cluster.address, cluster.env, 0)
    nodes = alive(cluster)
    assert {each["node"].rpartition("(")[2].rstrip(")") for each in found} == {HERE, *nodes}
    checks = {"version", "clock", "token", "gpu", "data", "writable", "speed", "free", "shared"}
    for node in nodes:
        assert {each["check"] for each in found if node in each["node"]} == checks
    assert [path.name for path in folder.iterdir()] == ["s.yaml"]


@pytest.mark.cluster
def test_a_node_whose_own_cache_folder_takes_no_files(cluster: Nodes, folder: Path) -> None:
    (folder / "file").touch()
    with another(cluster, FASHION_CACHE=str(folder / "file" / "cache")) as node:
        (bad,) = wrong(examined(folder, cluster.address, cluster.env, 1), node, cluster)
    assert (bad["check"], bad["place"]) == ("writable", f"cache {folder / 'file' / 'cache'}")


@pytest.mark.cluster
def test_a_node_that_offers_gpus_which_torch_does_not_see(cluster: Nodes, folder: Path) -> None:
    with another(cluster, "--num-gpus=64") as node:
        (bad,) = wrong(examined(folder, cluster.address, cluster.env, 1), node, cluster)
    assert bad["check"] == "gpu"
    assert "Ray offers 64" in bad["value"]


def test_a_node_with_other_sources(cluster: Nodes, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    shutil.copytree(Path(fashion.__file__).parent, other / "fashion")
    with open(other / "fashion" / "model" / "loss.py", "a") as file:
        file.write("# another version\n")
    with another(cluster, PYTHONPATH=str(other)) as node:
        (bad,) = wrong(examined(folder, cluster.address, cluster.env, 1), node, cluster)
    assert (bad["check"], bad["place"]) == ("version", "fashion-sweep")


@pytest.mark.slow
def test_a_node_that_can_not_load_the_package(
    cluster: Nodes, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("broken")
    (other / "fashion").mkdir()
    (other / "fashion" / "__init__.py").write_text("raise ImportError('no such package here')")
    with another(cluster, PYTHONPATH=str(other)) as node:
        (bad,) = wrong(examined(folder, cluster.address, cluster.env, 1), node, cluster)
    assert (bad["check"], bad["place"]) == ("node", "Ray node")


@pytest.mark.slow
def test_a_cluster_without_a_token_is_told_so(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    nodes = Nodes(tmp_path_factory.mktemp("open"))
    nodes.env["RAY_AUTH_MODE"] = "disabled"
    with nodes:
        (bad,) = wrong(examined(folder, nodes.address, nodes.env, 1), nodes.nodes[0], nodes)
    assert bad["check"] == "token"


def test_an_address_where_nobody_answers(folder: Path, cluster: Nodes) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fashion", "doctor", "s.yaml", "--address", "127.0.0.1:1025", "--json"],
        cwd=folder, env=cluster.env, capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 2, done
    assert "no Ray cluster answers" in done.stderr
    assert not done.stdout
    assert "Traceback" not in done.stderr
