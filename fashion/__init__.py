"""Hyper-parameter sweeps on Ray for multi-head image classification."""
