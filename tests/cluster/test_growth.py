"""How far a cluster may grow, by its autoscaler's file, and what a sweep makes of that."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fashion.cluster.growth import Growth, NodeType, growth_here, growth_of, read_config
from fashion.cluster.placement import HEAD, Placement, fit_trials
from fashion.cluster.processes import autoscalers
from fashion.cluster.session import RayNode
from fashion.errors import ResourcesError
from fashion.spec.settings import ResourcesConfig
from tests.support.cluster_files import FILLED, prepared
from tests.support.machines.ray_nodes import wait_until

GPU_WORKER = {"CPU": 1.0, "GPU": 1.0}
SHIPPED = growth_of(prepared(FILLED))


def node(**resources: float) -> RayNode:
    return RayNode("1", "10.0.0.2", resources)


def head(cpus: float = 0.0) -> RayNode:
    return RayNode("0", "10.0.0.1", {"CPU": cpus, HEAD: 1.0})


def wanted(**resources: Any) -> ResourcesConfig:
    return ResourcesConfig(**resources)


@pytest.mark.parametrize(
    ("types", "most", "workers"),
    [
        ([({"CPU": 4, "GPU": 1}, 4)], 4, 4),
        ([({"CPU": 4, "GPU": 1}, 4)], 2, 2),
        ([({"CPU": 4, "GPU": 1}, 3), ({"CPU": 8, "GPU": 4}, 1)], 2, 5),
        ([({"CPU": 2, "GPU": 4}, 1)], 4, 2),
        ([({"CPU": 4}, 4)], 4, 0),
        ([({"CPU": 4, "GPU": 1}, 0)], 4, 0),
        ([], 4, 0),
    ],
)
def test_how_many_workers_a_cluster_may_hold(types: list[tuple[Any, int]], most: int, workers: int) -> None:
    growth = Growth(tuple(NodeType(resources, number) for resources, number in types), most)
    assert growth.workers(GPU_WORKER) == workers


def test_the_shipped_cluster_may_hold_four_gpus() -> None:
    assert SHIPPED is not None
    assert SHIPPED.workers(GPU_WORKER) == 4
    assert SHIPPED.offers("GPU") == 1


def test_a_cluster_of_a_head_alone_can_not_grow() -> None:
    types = {"head": {"resources": {"CPU": 8}, "node_config": {}}, "none": {"resources": {"CPU": 8}, "max_workers": 0}}
    assert growth_of({"head_node_type": "head", "available_node_types": types, "max_workers": 4}) is None
    assert growth_of({}) is None


def test_what_fits_now_and_what_may_come() -> None:
    assert fit_trials(wanted(), [head()], SHIPPED) == Placement(1, 1, 1.0, concurrent=0, most=4)
    assert fit_trials(wanted(), [head(), node(CPU=4, GPU=1)], SHIPPED) == Placement(1, 1, 1.0, concurrent=1, most=4)
    assert fit_trials(wanted(concurrent_trials=3), [head()], SHIPPED) == Placement(1, 1, 1.0, concurrent=0, most=3)
    assert fit_trials(wanted(workers=2), [head()], SHIPPED) == Placement(2, 1, 1.0, concurrent=0, most=2)
    assert fit_trials(wanted(gpus_per_worker=0), [head()], SHIPPED) == Placement(1, 1, 0.0, concurrent=0, most=16)
    assert fit_trials(wanted(), [node(CPU=2)]) == Placement(1, 1, 0.0, concurrent=2)


def test_a_head_that_runs_trials_counts() -> None:
    growth = Growth((NodeType({"CPU": 1}, 2),), 2)
    assert fit_trials(wanted(), [head(3.0), node(CPU=1)], growth) == Placement(1, 1, 0.0, concurrent=4, most=5)


@pytest.mark.parametrize("resources", [{"workers": 5}, {"cpus_per_worker": 8}, {"gpus_per_worker": 2}])
def test_what_can_never_fit_is_refused(resources: dict[str, Any]) -> None:
    with pytest.raises(ResourcesError, match=r"room for 0 worker\(s\), and for \d when its autoscaler"):
        fit_trials(wanted(**resources), [head()], SHIPPED)


def test_an_autoscaler_elsewhere_is_taken_at_the_specs_word() -> None:
    asked = []

    def yes() -> bool:
        asked.append(True)
        return True

    found = fit_trials(wanted(concurrent_trials=3, gpus_per_worker=1), [head()], None, yes)
    assert found == Placement(1, 1, 1.0, concurrent=0, most=3)
    for unknown in ({"gpus_per_worker": 1}, {"concurrent_trials": 3}):
        with pytest.raises(ResourcesError, match=r"known on the head alone.*gpus_per_worker.*concurrent_trials"):
            fit_trials(wanted(**unknown), [head()], None, yes)
    assert len(asked) == 3
    fit_trials(wanted(concurrent_trials=1), [node(CPU=2)], None, yes)
    assert len(asked) == 3  # not asked where all fits
    assert fit_trials(wanted(concurrent_trials=3), [node(CPU=2)], None, yes) == Placement(1, 1, 0.0, 2, most=3)
    assert fit_trials(wanted(concurrent_trials=3), [node(CPU=2)], None, lambda: False) == Placement(1, 1, 0.0, 2)


def test_the_file_is_the_one_that_the_sessions_autoscaler_names(tmp_path: Path) -> None:
    file = tmp_path / "ray_bootstrap_config.yaml"
    file.write_text(json.dumps(prepared(FILLED)))
    # A process with the words of Ray's autoscaler, which waits.
    words = ["/x/ray/autoscaler/_private/monitor.py", "--logs-dir=/r/session_mine/logs", f"--autoscaling-config={file}"]
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", *words])
    try:
        wait_until(lambda: any(each.pid == process.pid for each in autoscalers()), "it is up")
        assert growth_here("session_mine") == SHIPPED
        assert growth_here("session_of_another") is None
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("text", ["", "[]", "a: [", None])
def test_a_file_that_can_not_be_read_is_told(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "config.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ResourcesError, match=r"config\.yaml: the configuration of Ray's autoscaler"):
        read_config(path)
