"""`cluster.node_choice.available_first` under the name that cluster files use (RAY_AUTOSCALER_UTILIZATION_SCORER)."""

from fashion.cluster.node_choice import available_first as available_first
