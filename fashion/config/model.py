"""The section `model`: the backbones, and what the heads see of them."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from fashion.config.base import Frozen
from fashion.config.names import JOINT


def _as_one(names: Any) -> Any:
    """Several backbones, written as a list, as one name."""
    listed = isinstance(names, list) and names and all(isinstance(name, str) for name in names)
    return JOINT.join(names) if listed else names


class ModelConfig(Frozen):
    backbone: Annotated[str, BeforeValidator(_as_one, json_schema_input_type=str | list[str])] = Field(
        description="a name that `fashion-sweep model --list` shows, or timm:NAME; of several, [NAME, NAME], the "
        "features stand side by side"
    )
    weights: str = Field("imagenet", description="none, imagenet, or the path of a local .safetensors/.pth file")
    dropout: float = Field(0.2, ge=0.0, lt=1.0, description="dropout before each head")
    drop_path: float = Field(0.0, ge=0.0, lt=1.0, description="stochastic depth rate, for backbones that have it")
    feature_norm: Literal["none", "batch"] = Field(
        "none",
        description="batch: normalise the pooled features before the heads, without scale and shift, as linear "
        "probes do "
        "(He et al. 2022, A.1)",
    )
    feature_stages: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(strict=False)] = Field(
        (),
        description="the heads also see the maps behind these stages of the backbone, pooled (`fashion-sweep model` "
        "lists the stages; the first is 1)",
    )
    feature_stats: Literal["mean", "mean_std"] = Field(
        "mean", description="how maps of feature_stages are pooled: the mean of each channel, or its deviation, too"
    )
    feature_root: bool = Field(
        False,
        description="the heads see the features' signed square roots (Perronnin et al. 2010, 3.2), which suit linear "
        "probes of ReLU features",
    )

    @model_validator(mode="after")
    def _stages_ascend(self) -> Self:
        if any(one >= other for one, other in pairwise(self.feature_stages)):
            raise ValueError(f"feature_stages ({list(self.feature_stages)}) must ascend")
        return self
