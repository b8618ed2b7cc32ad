"""A pass of a frozen network over a pack: the network, its precision, what its result depends on, and the cache file of
that."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from fashion.config.trial import TrialConfig
from fashion.data.pack import Pack
from fashion.model.backbones import row
from fashion.model.classifier import MultiHeadClassifier, build_model, normalization
from fashion.model.precision import computes_bf16
from fashion.model.pretrained.resolved_weights import ResolvedWeights


def precisions(config: TrialConfig, split: str, device: torch.device | str) -> tuple[bool, ...]:
    """Whether a pass over a split's images is made in bf16: the first is what this device computes; what is there
    already in another of them serves, too.

    A device that computes bf16 itself is faster with it (docs/performance.md). Only what is trained on is made so: what
    is evaluated is made in fp32, as every evaluation is, so that a trial's metrics are those of its whole model. With
    `data.folds` every image is both. split: what the images are used as.
    """
    if split == "val" or config.data.folds is not None or config.train.precision == "fp32":
        return (False,)
    return (True, False) if computes_bf16(torch.device(device)) else (False, True)


def serving(precisions: Sequence[bool], is_there: Callable[[bool], bool]) -> bool:
    """Which of `precisions` (as above) serves: the first whose file is there and whole, or else the first of all, which
    is to be computed."""
    return next((bf16 for bf16 in precisions if is_there(bf16)), precisions[0])


def described(
    pack: Pack,
    config: TrialConfig,
    weights: ResolvedWeights,
    mirrored: bool,
    version: int,
    cut: int | None = None,
    bf16: bool = False,
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
        # Left out for fp32, so that the caches of versions without bf16 keep their names.
        **({"precision": "bf16"} if bf16 else {}),
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
