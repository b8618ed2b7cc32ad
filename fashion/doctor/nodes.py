"""`doctor` on a cluster: the same examination as on one machine, as a Ray task on each of its nodes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from fashion.cluster.session import cluster
from fashion.doctor.examine import Node, Request, compare, examine, versions
from fashion.doctor.folder import HERE, Finding, Folder, marked, unwritable
from fashion.errors import Problem

NODE_PATIENCE = 120.0  # seconds for a node's whole examination; a process there starts in ten on a busy machine
CLOCK_PATIENCE = 20.0  # and for what it answers in no time
CLOCK_LOOKS = 3  # the quickest of so many answers bounds the difference best


@ray.remote(num_cpus=0, max_retries=0)
def look(request: Request) -> tuple[list[Finding], dict[str, str]]:
    return examine(request), versions()


@ray.remote(num_cpus=0, max_retries=0)
def clock() -> float:
    return time.time()


def examine_cluster(request: Request, address: str, note: Callable[[str], None]) -> list[Finding]:
    """Examine every node that is alive at `address`, all at once, and compare them with this machine.

    A node that does not answer in time, or can't run the examination, is a finding. Raises ResourcesError when no cluster
    answers.
    """
    found: list[Finding] = []
    with cluster(address, note), ExitStack() as marks:
        folders = tuple(_marked(folder, marks, found) for folder in request.folders)
        nodes = {_name(node): node for node in ray.nodes() if node["Alive"]}
        asked = {}
        for name, node in nodes.items():
            offered = int(node["Resources"].get("GPU", 0))
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
            bounds = None
            try:
                bounds = _clock_of(nodes[name])
            except RayError as error:  # it was lost just now
                found.append(_unfit(name, _said(error)))
            found += findings
            seen.append(Node(name, theirs, bounds))
    return found + compare(seen)


def _marked(folder: Folder, marks: ExitStack, found: list[Finding]) -> Folder:
    try:
        return marks.enter_context(marked(folder))
    except OSError as error:
        found.append(unwritable(HERE, folder, error))
        return folder


def _name(node: Mapping[str, Any]) -> str:
    """Its address, and the start of its id as Ray's own lists have it: several nodes may run on one machine."""
    return f"{node['NodeManagerAddress']} ({node['NodeID'][:8]})"


def _on(node: Mapping[str, Any]) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)


def _clock_of(node: Mapping[str, Any]) -> tuple[float, float]:
    """Least and most seconds by which the node's clock is ahead of this machine's: it was read between question and
    answer. (Cristian, "Probabilistic clock synchronization", 1989)"""
    bounds = []
    for _ in range(CLOCK_LOOKS):
        before = time.time()
        there = ray.get(clock.options(scheduling_strategy=_on(node)).remote(), timeout=CLOCK_PATIENCE)
        bounds.append((there - time.time(), there - before))
    return min(bounds, key=lambda bound: bound[1] - bound[0])


def _said(error: RayError) -> str:
    """Of what a task raised, the last line says what; of Ray's own trouble the first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[-1] if isinstance(error, RayTaskError) else lines[0]


def _unfit(name: str, value: str) -> Finding:
    rule = f"runs the examination within {NODE_PATIENCE:g} s"
    fix = f"See that the node is up, and that its environment has the fashion-sweep of {HERE}"
    return Finding("node", name, False, Problem("Ray node", rule, value, fix))
