"""The autoscaler tries another node type where one has no capacity."""

from __future__ import annotations

import re
import time
from numbers import Real
from typing import cast

import pytest
from ray.autoscaler._private.constants import AUTOSCALER_UTILIZATION_SCORER_KEY
from ray.autoscaler._private.node_provider_availability_tracker import NodeProviderAvailabilityTracker
from ray.autoscaler._private.resource_demand_scheduler import ResourceDemandScheduler
from ray.autoscaler.node_launch_exception import NodeLaunchException
from ray.autoscaler.node_provider import NodeProvider

from tests.support.cluster_files import CONFIG

WORKERS = {name for name in CONFIG["available_node_types"] if name != CONFIG["head_node_type"]}
SOLD_OUT = NodeLaunchException("InsufficientInstanceCapacity", "none left", src_exc_info=None)


@pytest.fixture
def scorer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes Ray use the scorer that cluster.yaml names for the head."""
    found = re.search(rf"{AUTOSCALER_UTILIZATION_SCORER_KEY}=(\S+?)[;\s]", CONFIG["head_start_ray_commands"][-1])
    assert found
    monkeypatch.setenv(AUTOSCALER_UTILIZATION_SCORER_KEY, found[1])


def started(refused: set[str], wanted: list[dict[str, float]]) -> dict[str, int]:
    """The nodes that Ray's scheduler would start for these bundles on an empty cluster, these types being refused."""
    tracker = NodeProviderAvailabilityTracker()
    for name in refused:
        tracker.update_node_availability(name, int(time.time()), SOLD_OUT)
    scheduler = ResourceDemandScheduler(
        NodeProvider({}, "c"), CONFIG["available_node_types"], CONFIG["max_workers"], CONFIG["head_node_type"], 1.0
    )
    bundles = cast(list[dict[str, Real]], wanted)  # as Ray's annotations call floats
    to_start, _ = scheduler.get_nodes_to_launch(
        [], {}, bundles, {}, [], {}, ensure_min_cluster_size=[], node_availability_summary=tracker.summary()
    )
    return {name: count for name, count in to_start.items() if name != CONFIG["head_node_type"]}


@pytest.mark.usefixtures("scorer")
@pytest.mark.parametrize("wanted", [{"GPU": 1.0}, {"CPU": 4.0}])
def test_a_type_that_was_refused_comes_last(wanted: dict[str, float]) -> None:
    refused: set[str] = set()
    while refused < WORKERS:
        (found,) = started(refused, [wanted])
        assert found in WORKERS - refused
        refused.add(found)
    assert started(refused, [wanted]), "all were refused: none is given up"
    assert started(set(), [{"GPU": 2.0}]) == {}


def test_ray_alone_would_ask_for_the_same_type_for_ever() -> None:
    """If this fails, Ray does it by itself, and the project's scorer can be removed."""
    (first,) = started(set(), [{"GPU": 1.0}])
    assert list(started({first}, [{"GPU": 1.0}])) == [first]
