"""`resources.elastic`: at the end of a sweep, when no trial is left to begin, those that still run take the cores that
have become idle.

The driver says in Ray's key-value store which nodes they run on; a trial's process asks before each epoch. What Ray
counts as free is no answer: the process of a trial that has ended keeps its cores until the sweep ends.
"""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Iterable

import ray
from ray.experimental import internal_kv


def say_last(run: str, nodes: Iterable[str]) -> None:
    """Tell the trials of a run, by its folder, that no other trial will begin, and the name of the node of each that
    still runs; an empty name for one that has not come up yet."""
    internal_kv._internal_kv_put(_key(run), json.dumps(list(nodes)).encode())


def threads_for(run: str, own: int) -> int:
    """Compute threads of this process in its next epoch: its own, or, when no trial is left to begin, an equal share of
    its node's cores among the trials that run there or may yet come up there."""
    last = internal_kv._internal_kv_get(_key(run))
    if last is None:
        return own
    trials = Counter(json.loads(last))
    node = ray.get_runtime_context().get_node_id()
    cores = ray._private.state.total_resources_per_node().get(node, {}).get("CPU", 0.0)
    return max(own, int(cores / max(1, trials[platform.node()] + trials[""])))


def _key(run: str) -> bytes:
    return f"fashion-sweep:last-trials:{run}".encode()
