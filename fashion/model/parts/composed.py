"""Networks that give the features of others side by side: of several backbones, and of stages within one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Pool = Callable[[Tensor], Tensor]  # maps (n, C, H, W) to numbers (n, k)


class JoinedBackbones(nn.Module):
    """Images (n, 3, H, W) to features (n, F), those of each backbone one after another; F is the sum of theirs."""

    def __init__(self, names: Sequence[str], backbones: Sequence[nn.Module]) -> None:
        super().__init__()
        for name, backbone in zip(names, backbones, strict=True):
            self.add_module(name.replace(".", "_"), backbone)  # torch allows no dots

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([backbone(images) for backbone in self.children()], 1)


class StageFeatures(nn.Module):
    """Images (n, 3, H, W) to features (n, F): the backbone's own, then what `pool` makes of the maps of some stages.

    stages: the names of these stages within `network`.
    """

    def __init__(self, network: nn.Module, stages: Sequence[str], pool: Pool) -> None:
        super().__init__()
        self.network, self.stages, self.pool = network, tuple(stages), pool

    def forward(self, images: Tensor) -> Tensor:
        found: dict[str, Tensor] = {}
        # A model may predict in several threads at once. Compiled code knows no threads.
        thread = None if torch.compiler.is_compiling() else threading.get_ident()

        def keep(name: str, output: Any) -> None:
            if thread is None or threading.get_ident() == thread:
                found[name] = self.pool(output)

        handles = [
            self.network.get_submodule(name).register_forward_hook(
                lambda module, inputs, output, name=name: keep(name, output)
            )
            for name in self.stages
        ]
        try:
            pooled: Tensor = self.network(images)
        finally:
            for handle in handles:
                handle.remove()
        return torch.cat([pooled, *(found[name] for name in self.stages)], 1)


class SignedRoot(nn.Module):
    """The square root of each number's size with the number's sign (Perronnin et al. 2010, Improving the Fisher kernel,
    3.2): features that are mostly small and sometimes large, as ReLU makes them, come closer to a normal distribution.
    """

    def forward(self, features: Tensor) -> Tensor:
        # Shifted by so little that the slope is finite at 0, where features of ReLU often are.
        least = 1e-6
        size: Tensor = (features.abs() + least).sqrt() - least**0.5
        return features.sign() * size
