"""The name under which clusters that were launched before know `cluster.node_choice.available_first` (cluster.yaml)."""

from fashion.cluster.node_choice import available_first as available_first
