"""Which node type Ray's autoscaler starts next: one that is available, rather than one that the cloud has just refused.

The head's autoscaler loads this by its name (`cluster.yaml`, RAY_AUTOSCALER_UTILIZATION_SCORER). That is version 1 of
the autoscaler, whose own scorer ignores which types were refused, although it is told (Ray 2.60).
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
    """A node type's rank for these bundles of resources, of which the greatest is started; None if none fits on it.

    It is Ray's own rank, except that a type whose last launch failed comes after all others for the half hour during
    which Ray remembers that.
    """
    from ray.autoscaler._private.resource_demand_scheduler import _resource_based_utilization_scorer

    rank = _resource_based_utilization_scorer(
        node_resources, resources, node_availability_summary=node_availability_summary
    )
    if rank is None:
        return None
    tried = node_availability_summary.node_availabilities.get(node_type)
    return (tried is None or tried.is_available, *rank)
