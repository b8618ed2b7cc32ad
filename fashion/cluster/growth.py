"""How large a cluster may become: what fits on nodes, and which ones Ray's autoscaler may start, as its file says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fashion.cluster.processes import autoscalers
from fashion.errors import ResourcesError

RAYS_MAXIMUM = 2  # workers, where the file does not say

Resources = Mapping[str, float]  # "CPU", "GPU", ... -> how much


@dataclass(frozen=True)
class NodeType:
    """Nodes that an autoscaler may start: what each offers, how many there may be at once."""

    resources: Resources
    most: int


@dataclass(frozen=True)
class Growth:
    """The workers' node types and how many nodes of all of them together there may be, those that are there included."""

    types: tuple[NodeType, ...]
    most: int

    def offers(self, kind: str) -> float:
        """The most of a resource that one node may have."""
        return max((each.resources.get(kind, 0.0) for each in self.types if min(each.most, self.most) > 0), default=0.0)

    def workers(self, needs: Resources) -> int:
        """How many workers fit at most."""
        fit = [(workers_on(each.resources, needs), each.most) for each in self.types]
        room, left = 0, self.most
        for workers, most in sorted(fit, reverse=True):
            nodes = max(min(most, left), 0)
            room, left = room + workers * nodes, left - nodes
        return room


def workers_on(node: Resources, needs: Resources) -> int:
    """How many workers fit on a node of these resources."""
    # A hair more than asked, so that four workers of 0.25 fit on a whole.
    return min(int(node.get(kind, 0.0) / need + 1e-9) for kind, need in needs.items() if need)


def workers_that_fit(nodes: Sequence[Resources], needs: Resources) -> int:
    """How many workers fit on nodes of these resources; one never spans two nodes."""
    return sum(workers_on(node, needs) for node in nodes)


def growth_here(session: str) -> Growth | None:
    """What the autoscaler of the Ray session of that name may start. None: no such autoscaler runs on this machine (it does
    on the head alone), or it may start nothing.

    Raises ResourcesError when its configuration can't be read.
    """
    for daemon in autoscalers():
        path = daemon.option("autoscaling-config")
        if path and session in Path(daemon.option("logs-dir")).parts:
            return growth_of(read_config(Path(path).expanduser()))
    return None


def read_config(path: Path) -> dict[str, Any]:
    """An autoscaler's configuration, as `ray up` leaves it on the head, defaults filled in. Raises ResourcesError."""
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
    """What a cluster's configuration lets its autoscaler start, the head excepted; None where that is nothing."""
    most = config.get("max_workers", RAYS_MAXIMUM)
    types = tuple(
        NodeType(node.get("resources") or {}, node.get("max_workers", most))
        for name, node in (config.get("available_node_types") or {}).items()
        if name != config.get("head_node_type")
    )
    growth = Growth(types, most)
    return growth if most > 0 and any(each.most > 0 for each in types) else None
