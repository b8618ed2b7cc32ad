"""Whether a backbone takes images of a size, and batches of one image: tried on the meta device, in no memory."""

from __future__ import annotations

import torch
from torch import nn

from fashion.model.backbones import BackboneRow
from fashion.model.network import make_backbone, meta_backbone, stages_of


def why_it_fails(
    row: BackboneRow, side: int, images: int = 2, training: bool = True, frozen_stages: int | None = 0
) -> str:
    """Why the backbone can't compute the features of `images` images of `side` x `side` pixels; empty if it can.

    training: with batch statistics, except in the first `frozen_stages` stages (None: the whole backbone is frozen).
    """
    network, _ = meta_backbone(row)
    reason = _forward(network, side, images, training, frozen_stages, "meta")
    if reason:
        # The meta device lacks some operations. What counts is whether training would fail.
        with torch.random.fork_rng(devices=[]):
            network, _ = make_backbone(row)
        reason = _forward(network, side, images, training, frozen_stages, "cpu")
    return reason


def _forward(network: nn.Module, side: int, images: int, training: bool, frozen_stages: int | None, device: str) -> str:
    network.train(training and frozen_stages is not None)
    for _, stage in stages_of(network)[: frozen_stages or 0]:
        stage.eval()
    try:
        with torch.no_grad():
            network(torch.zeros(images, 3, side, side, device=device))
    except Exception as error:  # each network has its own way to refuse a size
        return (str(error).strip() or type(error).__name__).splitlines()[0]
    finally:
        network.train()
    return ""
