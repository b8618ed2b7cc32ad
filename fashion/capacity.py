"""`cluster.node_choice.available_first` under the name by which clusters that were launched earlier load it."""

from fashion.cluster.node_choice import available_first as available_first
