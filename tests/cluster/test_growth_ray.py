"""A sweep on a cluster without workers: Ray's autoscaler starts nodes on this machine and gives them back.

The nodes are real, the machines are not: Ray's `FakeMultiNodeProvider` starts processes in place of instances.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.autoscaler._private.fake_multi_node.node_provider import (
    FAKE_HEAD_NODE_ID,
    FAKE_HEAD_NODE_TYPE,
    FakeMultiNodeProvider,
)

from tests.support.machines.ray_nodes import Nodes, launch, wait_until
from tests.support.node_sweeps import NOTHING, attempts, finish, undisturbed, wait_for_epoch, write_spec
from tests.support.running import assert_same

pytestmark = pytest.mark.ray

# Ray's autoscaler, and its second version.
BOTH = pytest.mark.parametrize(
    "version", [pytest.param(1, marks=pytest.mark.cluster), pytest.param(2, marks=pytest.mark.slow)]
)


class Scaled(Nodes):
    """A head with Ray's autoscaler, of either version, which may start `most` nodes of one CPU each."""

    def __init__(self, folder: Path, most: int, version: int, *environment: str) -> None:
        self.file = folder / "autoscaler.json"
        start = [
            "env", "RAY_FAKE_CLUSTER=1", "AUTOSCALER_UPDATE_INTERVAL_S=1", f"RAY_enable_autoscaler_v2={version - 1}",
            f"RAY_OVERRIDE_NODE_ID_FOR_TESTING={FAKE_HEAD_NODE_ID}", f"RAY_CLOUD_INSTANCE_ID={FAKE_HEAD_NODE_ID}",
            f"RAY_NODE_TYPE_NAME={FAKE_HEAD_NODE_TYPE}", *environment,
        ]  # fmt: skip
        super().__init__(folder, f"--autoscaling-config={self.file}", within=start)
        gcs = f"{ray.util.get_node_ip_address()}:{self.port}"
        self.file.write_text(json.dumps(configuration(gcs, most, version)))

    def workers(self) -> int:
        """How many nodes the autoscaler has started and not given back."""
        return len([pid for pid in self.nodes[0].processes() if raylet(pid)]) - 1


def raylet(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().partition("\0")[0].endswith("/raylet")
    except OSError:
        return False


def configuration(gcs: str, most: int, version: int) -> dict[str, Any]:
    fake = FakeMultiNodeProvider
    provider = {
        # As "fake_multinode" would, whose file of defaults Ray's wheel leaves out.
        "type": "external", "module": f"{fake.__module__}.{fake.__name__}", "use_node_id_as_ip": True,
        "disable_node_updaters": True, "disable_launch_config_check": True, "gcs_address": gcs,
    }  # fmt: skip
    if version == 2:
        provider |= {"launch_multiple": True, "head_node_id": FAKE_HEAD_NODE_ID}
    lists = (
        "cluster_synced_files", "rsync_exclude", "rsync_filter", "initialization_commands", "setup_commands",
        "head_setup_commands", "worker_setup_commands", "head_start_ray_commands", "worker_start_ray_commands",
    )  # fmt: skip
    return {
        "cluster_name": "fake", "max_workers": most, "upscaling_speed": 1.0, "idle_timeout_minutes": 0.1,
        "provider": provider, "auth": {}, "file_mounts": {}, "file_mounts_sync_continuously": False,
        "head_node_type": FAKE_HEAD_NODE_TYPE,
        "available_node_types": {
            FAKE_HEAD_NODE_TYPE: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "small": {
                "resources": {"CPU": 1, "object_store_memory": 100_000_000}, "node_config": {}, "min_workers": 0,
                "max_workers": most,
            },
        },
        **{name: [] for name in lists},
    }  # fmt: skip


@BOTH
def test_nodes_are_started_for_the_trials_and_given_back(tmp_path: Path, demo_root: Path, version: int) -> None:
    alone = undisturbed(tmp_path / "alone", demo_root, trials=3, epochs=8)
    write_spec(tmp_path, demo_root, trials=3, epochs=8)
    with Scaled(tmp_path, 2, version) as nodes:
        process = launch(tmp_path, "--address", nodes.address, env=nodes.env)
        said = finish(process)
        assert "room for 0 trial(s) at once now; Ray's autoscaler starts nodes for up to 2" in said
        assert "room for 2 trial(s) at once now" in said
        assert nodes.left() == NOTHING
        wait_until(lambda: nodes.workers() == 0, "the nodes are given back")
    assert_same(tmp_path / "runs" / "s", alone)
    assert attempts(tmp_path / "runs" / "s") == {0: {1}, 1: {1}, 2: {1}}


@BOTH
def test_a_killed_sweep_leaves_no_request_behind(tmp_path: Path, demo_root: Path, version: int) -> None:
    write_spec(tmp_path, demo_root, trials=4, epochs=40)
    with Scaled(tmp_path, 2, version) as nodes:
        process = launch(tmp_path, "--address", nodes.address, env=nodes.env)
        wait_for_epoch(process, tmp_path, 0, 1)
        wait_until(lambda: nodes.workers() == 2, "both nodes")
        process.kill()
        process.communicate()
        wait_until(lambda: nodes.workers() == 0, "the nodes are given back")


@pytest.mark.slow
def test_a_group_of_workers_gets_its_nodes(tmp_path: Path, demo_root: Path) -> None:
    """Also where the nodes take longer to start than Ray Train waits at a time, as machines do."""
    write_spec(tmp_path, demo_root, trials=1, epochs=2, workers=2, max_failures=0)
    with Scaled(tmp_path, 2, 1, "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S=4") as nodes:
        said = finish(launch(tmp_path, "--address", nodes.address, env=nodes.env))
        assert nodes.left() == NOTHING
    assert "room for 0 trial(s) at once now; Ray's autoscaler starts nodes for up to 1" in said
    assert attempts(tmp_path / "runs" / "s") == {0: {1}}


@pytest.mark.cluster
def test_what_no_node_type_offers_is_refused_at_once(tmp_path: Path, demo_root: Path) -> None:
    write_spec(tmp_path, demo_root, trials=1, epochs=1, cpus_per_worker=2)
    with Scaled(tmp_path, 2, version=1) as nodes:
        process = launch(tmp_path, "--address", nodes.address, env=nodes.env)
        _, said = process.communicate(timeout=120)
        assert process.returncode == 2, said
        assert "room for 0 worker(s), and for 0 when its autoscaler has started all that it may" in said
        assert nodes.workers() == 0
