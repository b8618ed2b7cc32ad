"""`doctor` on a cluster: the examination of one machine, run as a Ray task on each of its nodes."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from fashion.cluster.session import RayNode, alive_nodes, cluster
from fashion.doctor.diagnosis import HERE, ClockOffset, Diagnosis
from fashion.doctor.examine import Node, Request, compare, examine, versions
from fashion.doctor.folder import Folder, marked, unwritable
from fashion.errors import Problem

NODE_PATIENCE = 120.0  # seconds for a node's whole examination; its process alone takes ten to start on a busy machine
CLOCK_PATIENCE = 20.0  # seconds for a question that takes no time to answer
CLOCK_LOOKS = 3  # the quickest of this many answers bounds the offset best


@ray.remote(num_cpus=0, max_retries=0)
def look(request: Request) -> tuple[list[Diagnosis], dict[str, str]]:
    return examine(request), versions()


@ray.remote(num_cpus=0, max_retries=0)
def clock() -> float:
    return time.time()


def examine_cluster(request: Request, address: str, note: Callable[[str], None]) -> list[Diagnosis]:
    """Examine all live nodes of the cluster at `address` at once, and compare them with this machine.

    A node that does not answer in time, or can't run the examination, gets a diagnosis of its own. Raises
    ResourcesError where no cluster answers.
    """
    found: list[Diagnosis] = []
    with cluster(address, note), ExitStack() as marks:
        folders = tuple(_marked(folder, marks, found) for folder in request.folders)
        nodes = {_name(node): node for node in alive_nodes()}
        asked = {}
        for name, node in nodes.items():
            offered = int(node.resources.get("GPU", 0))
            there = replace(request, node=name, folders=folders, joined=True, gpus=offered)
            asked[look.options(scheduling_strategy=_on(node)).remote(there)] = name
        answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=NODE_PATIENCE)
        seen = [Node(HERE, versions())]
        for pending, name in asked.items():
            if pending not in answered:
                found.append(_unfit(name, "no answer"))
                continue
            try:
                findings, theirs = ray.get(pending, timeout=CLOCK_PATIENCE)
            except RayError as error:
                found.append(_unfit(name, _said(error)))
                continue
            offset = None
            try:
                offset = _clock_of(nodes[name])
            except RayError as error:  # the node was lost since
                found.append(_unfit(name, _said(error)))
            found += findings
            seen.append(Node(name, theirs, offset))
    return found + compare(seen)


def _marked(folder: Folder, marks: ExitStack, found: list[Diagnosis]) -> Folder:
    try:
        return marks.enter_context(marked(folder))
    except OSError as error:
        found.append(unwritable(HERE, folder, error))
        return folder


def _name(node: RayNode) -> str:
    """Its address, and the start of its id as in Ray's own lists, since several nodes may run on one machine."""
    return f"{node.address} ({node.id[:8]})"


def _on(node: RayNode) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node.id, soft=False)


def _clock_of(node: RayNode) -> ClockOffset:
    """The offset of the node's clock from this machine's, bounded by the times of question and answer.

    Cristian, "Probabilistic clock synchronization", 1989.
    """
    bounds = []
    for _ in range(CLOCK_LOOKS):
        before = time.time()
        there = ray.get(clock.options(scheduling_strategy=_on(node)).remote(), timeout=CLOCK_PATIENCE)
        bounds.append(ClockOffset(there - time.time(), there - before))
    return min(bounds, key=lambda bound: bound.high - bound.low)


def _said(error: RayError) -> str:
    """The line that says what happened: the last of an exception in the task, the first of an error of Ray's own."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[-1] if isinstance(error, RayTaskError) else lines[0]


def _unfit(name: str, value: str) -> Diagnosis:
    rule = f"completes the examination within {NODE_PATIENCE:g} s"
    fix = f"Make sure that the node is up, and that its environment has the same fashion-sweep as {HERE}"
    return Diagnosis("node", name, False, Problem("Ray node", rule, value, fix))
