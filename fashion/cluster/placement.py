"""How many trials a cluster has room for: on the nodes that are there, and on those that its autoscaler may start.

Trials that do not fit now wait in Ray, and Ray's autoscaler starts nodes for whatever waits. So a sweep hands out as
many trials as the cluster may grow to hold. It makes no other request, so none is left behind when it ends or is
killed.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray._private import ray_constants
from ray.autoscaler.v2.schema import ClusterStatus
from ray.autoscaler.v2.sdk import get_cluster_status
from ray.autoscaler.v2.utils import is_autoscaler_v2
from ray.experimental.internal_kv import _internal_kv_get

from fashion.cluster.growth import Growth, growth_here, workers_that_fit
from fashion.cluster.session import LOOK_SECONDS, RayNode, alive_nodes
from fashion.errors import ResourcesError
from fashion.spec.settings import ResourcesConfig

HEAD = "node:__internal_head__"  # a resource that only the head has
ELSEWHERE = (
    " Its autoscaler may start nodes, but which ones is known on the head alone. Run the command there, or set "
    "gpus_per_worker to a number and concurrent_trials to the number of trials that it is to start nodes for."
)


@dataclass(frozen=True)
class Placement:
    """What a trial takes and how many fit. `gpus_per_worker` is a number here, never "auto".

    `concurrent` trials fit at once on the nodes that are there. `most` fit once the autoscaler has started all nodes
    that it may and has replaced lost ones; 0 where there is no autoscaler.
    """

    workers: int
    cpus_per_worker: int
    gpus_per_worker: float
    concurrent: int
    most: int = 0


def find_room(resources: ResourcesConfig, note: Callable[[str], None]) -> Placement:
    """`fit_trials` on the cluster that this process has joined or started, with a note if less fits than was asked.

    Raises ResourcesError as `fit_trials` does.
    """
    placement = fit_trials(resources, alive_nodes(), growth_here(_session()), autoscales)
    asked, now, most = resources.concurrent_trials, placement.concurrent, placement.most
    if asked != "auto" and asked > max(now, most):
        note(f"resources.concurrent_trials: {asked} asked, {max(now, most)} fit at once")
    if now < most:
        note(f"the cluster has room for {now} trial(s) at once now; Ray's autoscaler starts nodes for up to {most}")
    return placement


def fit_trials(
    resources: ResourcesConfig,
    nodes: Sequence[RayNode],
    growth: Growth | None = None,
    grows_otherwise: Callable[[], bool] = lambda: False,
) -> Placement:
    """Fit trials onto the cluster's live nodes and those that its autoscaler may start.

    `growth` is what the autoscaler may start, None where that is unknown. `grows_otherwise` says whether there is an
    autoscaler all the same; if so, the spec's concurrent_trials is trusted.

    Raises:
        ResourcesError: not even one trial fits, now or ever.
    """
    alive = [node.resources for node in nodes]
    gpus, asked, workers = resources.gpus_per_worker, resources.concurrent_trials, resources.workers
    if gpus == "auto":
        gpu = any(node.get("GPU", 0) >= 1 for node in alive) or (growth is not None and growth.offers("GPU") >= 1)
        gpus = 1.0 if gpu else 0.0
    needs, hint = {"CPU": float(resources.cpus_per_worker), "GPU": float(gpus)}, ""
    room, grown = workers_that_fit(alive, needs), 0
    if growth is not None:
        # The head is not among the autoscaler's nodes.
        grown = workers_that_fit([node for node in alive if HEAD in node], needs) + growth.workers(needs)
    elif room < (1 if asked == "auto" else asked) * workers and grows_otherwise():
        # Whether unknown nodes have GPUs is unknown, too. A wrong guess would leave their GPUs idle.
        if asked != "auto" and (room >= workers or resources.gpus_per_worker != "auto"):
            grown = asked * workers
        hint = ELSEWHERE
    if max(room, grown) < workers:
        have = ", ".join(f"{sum(node.get(kind, 0.0) for node in alive):g} {kind}" for kind in needs)
        when = f", and for {grown} when its autoscaler has started all that it may" if growth is not None else ""
        raise ResourcesError(
            f"resources: a trial needs {workers} worker(s) of {resources.cpus_per_worker} CPU and {gpus:g} GPU; got a "
            f"cluster of {len(alive)} node(s) with {have}, room for {room} worker(s){when}. Lower resources.workers, "
            f"cpus_per_worker or gpus_per_worker (0 trains on CPU), or run on a larger cluster.{hint}"
        )
    limit = math.inf if asked == "auto" else asked
    now, then = (int(min(number // workers, limit)) for number in (room, grown))
    return Placement(workers, resources.cpus_per_worker, gpus, now, then)


def largest_process() -> tuple[int, bool]:
    """What a single process can have on this cluster, on a node that is there or that the autoscaler may start.

    Returns the most CPUs of a node, at least 1, and whether a node has a GPU.
    """
    nodes = [node.resources for node in alive_nodes()]
    growth = growth_here(_session())
    cpus, gpus = (
        max([*(node.get(kind, 0.0) for node in nodes), growth.offers(kind) if growth else 0.0])
        for kind in ("CPU", "GPU")
    )
    return max(int(cpus), 1), gpus >= 1


class Room:
    """How many trials to hand out, so that a sweep grows and shrinks with its cluster.

    As many as fit on the nodes that are there or that may come, and at least one, which then waits for a node.
    """

    def __init__(self, resources: ResourcesConfig, placement: Placement, note: Callable[[str], None]) -> None:
        self.placement, self.note = placement, note
        self.limit = math.inf if resources.concurrent_trials == "auto" else resources.concurrent_trials
        self.found, self.looked, self.coming = placement.concurrent, time.monotonic(), ""

    def __call__(self) -> int:
        if time.monotonic() - self.looked > LOOK_SECONDS:
            self.found, before = self._look(), self.found
            if self.found != before:
                self.note(f"the cluster has room for {self.found} trial(s) at once now, {before} before")
            if self.placement.most:
                self.coming, before_coming = coming(), self.coming
                if self.coming and self.coming != before_coming:
                    self.note(f"Ray's autoscaler: {self.coming}")
            self.looked = time.monotonic()
        return max(self.found, self.placement.most, 1)

    def _look(self) -> int:
        placement = self.placement
        gone = ray._private.state.state.get_draining_nodes()
        nodes = [node.resources for node in alive_nodes() if node.id not in gone]
        needs = {"CPU": float(placement.cpus_per_worker), "GPU": placement.gpus_per_worker}
        return int(min(workers_that_fit(nodes, needs) // placement.workers, self.limit))


def _session() -> str:
    """The name of the Ray session to which this process belongs."""
    node: Any = ray._private.worker._global_node
    return str(node.session_name)


def autoscales() -> bool:
    """Whether the cluster has an autoscaler that knows node types, and so may start nodes."""
    if is_autoscaler_v2(fetch_from_server=True):
        status = _status_v2()
        names = {node.ray_node_type_name for node in (*status.active_nodes, *status.idle_nodes)}
    else:
        names = set(_status_v1().get("active_nodes", ()))
    # An autoscaler that only watches makes up a node type for each node.
    return any(name and not name.startswith("node_") for name in names)


def coming() -> str:
    """The nodes that the autoscaler is starting, and the types it can't get, in words; empty where there are none."""
    starting: Counter[str] = Counter()
    if is_autoscaler_v2(fetch_from_server=True):
        status = _status_v2()
        starting.update(node.ray_node_type_name for node in status.pending_nodes)
        for launch in status.pending_launches:
            starting[launch.ray_node_type_name] += launch.count
        short = {launch.ray_node_type_name for launch in status.failed_launches}
    else:
        content = _status_v1()
        starting.update(kind for _, kind, _ in content.get("pending_nodes", ()))
        starting.update(content.get("pending_launches", {}))
        known = content.get("node_availability_summary", {}).get("node_availabilities", {})
        short = {kind for kind, each in known.items() if not each["is_available"]}
    words = [f"starts {', '.join(f'{count} {kind}' for kind, count in sorted(starting.items()))}"] if starting else []
    return "; ".join(words + ([f"can't get {', '.join(sorted(short))} for now"] if short else []))


def _status_v1() -> dict[str, Any]:
    """The last status of version 1 of Ray's autoscaler; empty before the first."""
    text = _internal_kv_get(ray_constants.DEBUG_AUTOSCALING_STATUS)
    content: dict[str, Any] = (json.loads(text).get("autoscaler_report") if text else None) or {}
    return content


def _status_v2() -> ClusterStatus:
    """The status of version 2 of Ray's autoscaler."""
    return get_cluster_status(ray.get_runtime_context().gcs_address)
