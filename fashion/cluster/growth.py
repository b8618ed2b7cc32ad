"""How large a cluster may become: how many workers fit on nodes, and which nodes Ray's autoscaler may start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fashion.cluster.processes import autoscalers
from fashion.errors import ResourcesError

RAYS_MAXIMUM = 2  # worker nodes, if the file does not say

Resources = Mapping[str, float]  # "CPU", "GPU", ... -> amount


@dataclass(frozen=True)
class NodeType:
    """A type of node that an autoscaler may start: what each offers, and how many there may be at once."""

    resources: Resources
    most: int


@dataclass(frozen=True)
class Growth:
    """The worker node types, and how many nodes there may be of all types together, counting those that are there."""

    types: tuple[NodeType, ...]
    most: int

    def offers(self, kind: str) -> float:
        """The most of a resource that a single node may have."""
        return max((each.resources.get(kind, 0.0) for each in self.types if min(each.most, self.most) > 0), default=0.0)

    def workers(self, needs: Resources) -> int:
        """How many workers of these needs fit once the cluster is as large as it may become."""
        fit = [(workers_on(each.resources, needs), each.most) for each in self.types]
        room, left = 0, self.most
        for workers, most in sorted(fit, reverse=True):
            nodes = max(min(most, left), 0)
            room, left = room + workers * nodes, left - nodes
        return room


def workers_on(node: Resources, needs: Resources) -> int:
    """How many workers of these needs fit on a node of these resources."""
    # Rounding must not keep four workers of 0.25 off a node of 1.
    return min(int(node.get(kind, 0.0) / need + 1e-9) for kind, need in needs.items() if need)


def workers_that_fit(nodes: Sequence[Resources], needs: Resources) -> int:
    """How many workers of these needs fit on nodes of these resources. A worker never spans two nodes."""
    return sum(workers_on(node, needs) for node in nodes)


def growth_here(session: str) -> Growth | None:
    """What the autoscaler of the Ray session of this name may start.

    None where it does not run on this machine, since it runs on the head alone, or where it may start nothing. Raises
    ResourcesError where its configuration can't be read.
    """
    for daemon in autoscalers():
        path = daemon.option("autoscaling-config")
        if path and session in Path(daemon.option("logs-dir")).parts:
            return growth_of(read_config(Path(path).expanduser()))
    return None


def read_config(path: Path) -> dict[str, Any]:
    """An autoscaler's configuration as `ray up` leaves it on the head, with defaults filled in.

    Raises ResourcesError where it can't be read.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    yaml = YAML(typ="safe", pure=True)
    yaml.version = (1, 1)  # as Ray reads it
    try:
        config = yaml.load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, YAMLError) as error:
        raise ResourcesError(f"{path}: the configuration of Ray's autoscaler can't be read ({error}).") from error
    if not isinstance(config, dict):
        raise ResourcesError(f"{path}: the configuration of Ray's autoscaler is not a mapping.")
    return config


def growth_of(config: Mapping[str, Any]) -> Growth | None:
    """What a cluster's configuration lets its autoscaler start besides the head; None if that is nothing."""
    most = config.get("max_workers", RAYS_MAXIMUM)
    types = tuple(
        NodeType(node.get("resources") or {}, node.get("max_workers", most))
        for name, node in (config.get("available_node_types") or {}).items()
        if name != config.get("head_node_type")
    )
    growth = Growth(types, most)
    return growth if most > 0 and any(each.most > 0 for each in types) else None
