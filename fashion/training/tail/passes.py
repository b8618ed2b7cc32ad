"""A pass of a frozen network over a pack: the network, what its result depends on, and the cache file of that."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fashion.config.trial import TrialConfig
from fashion.data.pack import Pack
from fashion.model.backbones import row
from fashion.model.classifier import MultiHeadClassifier, build_model, normalization
from fashion.model.pretrained.resolved_weights import ResolvedWeights


def described(
    pack: Pack, config: TrialConfig, weights: ResolvedWeights, mirrored: bool, version: int, cut: int | None = None
) -> dict[str, Any]:
    """Everything that the result depends on. version: of the file's format. cut: the number of stages of a tail that
    are frozen; None where no maps come into it."""
    backbone = config.model.backbone
    return {
        "pack": pack.path.name,
        "crop": config.data.crop,
        "normalization": normalization(config.data.normalize, row(backbone)),
        "backbone": backbone,
        # Random weights are the trial's own.
        "weights": weights.sha256 or f"seed {config.seed}",
        "mirrored": mirrored,
        **({} if cut is None else {"cut": cut}),
        "format": version,
    }


def cache_path(pack: Pack, kind: str, of: Mapping[str, Any]) -> Path:
    """The file beside the pack for a result of this kind (`features`, `maps`), named by all that it depends on."""
    digest = hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()[:16]
    return pack.path.with_name(f"{pack.metadata['fingerprint']}-{pack.metadata['split']}-{kind}-{digest}.arrow")


def frozen_model(config: TrialConfig, weights: ResolvedWeights, device: torch.device) -> MultiHeadClassifier:
    """The whole model without heads, in evaluation mode, with the backbone that the trial begins with."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = build_model(config.model, (), weights)
    return model.to(memory_format=torch.channels_last).to(device).eval()
