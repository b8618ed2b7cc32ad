"""Backbones, pretrained weights and the multi-head classifier."""
