"""Where a model's initial weights were found. Loads no torch, so that the driver can carry it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fashion.config.model import ModelConfig
from fashion.config.names import names_in


@dataclass(frozen=True)
class ResolvedWeights:
    """Where a trial's initial weights come from. `path` is absolute; `sha256` is the file's, in hex. Of several
    backbones `parts` has those of each, and `sha256` is that of theirs."""

    kind: Literal["none", "imagenet", "file"]
    path: Path | None = None
    sha256: str | None = None
    parts: tuple[ResolvedWeights, ...] = ()


def joined_weights(model: ModelConfig, resolve: Callable[[ModelConfig], ResolvedWeights]) -> ResolvedWeights:
    """The weights of a model of several backbones, of which `resolve` finds those of each."""
    parts = tuple(resolve(model.model_copy(update={"backbone": name})) for name in names_in(model.backbone))
    found = "".join(part.sha256 or "" for part in parts)
    return ResolvedWeights(parts[0].kind, None, hashlib.sha256(found.encode()).hexdigest() if found else None, parts)
