"""Which node type Ray's autoscaler starts next: one that is to be had, rather than again one that the cloud just refused.

The head's autoscaler loads it by its name (`cluster.yaml`, RAY_AUTOSCALER_UTILIZATION_SCORER). It is version 1's; its own
scorer is handed what was refused, too, and does not look at it (Ray 2.60).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray.autoscaler._private.node_provider_availability_tracker import NodeAvailabilitySummary


def available_first(
    node_resources: dict[str, Any],  # numbers, as Ray types them
    resources: list[dict[str, Any]],
    node_type: str,
    *,
    node_availability_summary: NodeAvailabilitySummary,
) -> tuple[float, ...] | None:
    """A node type's rank for these bundles of resources, the greatest is started; None: not one fits.

    Ray's own rank, but a type whose last launch failed comes after all others, for the half hour that Ray remembers it.
    """
    from ray.autoscaler._private.resource_demand_scheduler import _resource_based_utilization_scorer

    rank = _resource_based_utilization_scorer(
        node_resources, resources, node_availability_summary=node_availability_summary
    )
    if rank is None:
        return None
    tried = node_availability_summary.node_availabilities.get(node_type)
    return (tried is None or tried.is_available, *rank)
