"""A small residual network for CPU tests and the quickstart: about 0.16 million parameters, for 48 to 96 pixels."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class TinyBlock(nn.Module):
    """Two 3x3 convolutions with batch normalisation and a skip connection (He et al. 2016); the first halves the
    side."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.mix = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)

    def forward(self, images: Tensor) -> Tensor:
        half = torch.relu(self.norm1(self.down(images)))
        return torch.relu(half + self.norm2(self.mix(half)))


class TinyNet(nn.Module):
    """Stem and three blocks, then the mean and the maximum over all positions, side by side.

    The maximum keeps small marks, such as a collar or the end of a sleeve, which the mean washes out. Input (n, 3, H,
    W) with H and W at least 16; output (n, 160). A forward pass takes about 13 million multiplications per image of 64
    px.
    """

    num_features = 160

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True)
        )
        self.stage1 = TinyBlock(16, 32)
        self.stage2 = TinyBlock(32, 56)
        self.stage3 = TinyBlock(56, 80)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.stage3(self.stage2(self.stage1(self.stem(images))))
        return torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], dim=1)
