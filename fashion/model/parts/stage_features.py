"""Features of a backbone's earlier stages beside its own (`model.feature_stages`).

What the last stage has lost, earlier ones still hold: texture, edges, where things are. Their maps are pooled to the
mean of each channel, and to its deviation (`model.feature_stats`).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import Tensor, nn

from fashion.config.model import ModelConfig
from fashion.errors import Problem, UserError
from fashion.model.backbones import BackboneRow
from fashion.model.network import complete_row, meta_backbone, stages_of
from fashion.model.parts.composed import JoinedBackbones, Pool, StageFeatures
from fashion.model.parts.cut import map_shape


def mean(maps: Tensor) -> Tensor:
    """The mean of each channel, (n, C), of maps (n, C, H, W)."""
    return maps.mean((2, 3))


def mean_and_deviation(maps: Tensor) -> Tensor:
    """The mean and the standard deviation of each channel, (n, 2 C), of maps (n, C, H, W)."""
    variance, average = torch.var_mean(maps, (2, 3), correction=0)
    # The root has no slope at 0, where a channel is the same everywhere.
    return torch.cat([average, (variance + 1e-12).sqrt()], 1)


# The keys are the words that `ModelConfig.feature_stats` allows.
FEATURE_STATS: Mapping[str, Pool] = {"mean": mean, "mean_std": mean_and_deviation}
NUMBERS_A_CHANNEL: Mapping[str, int] = {"mean": 1, "mean_std": 2}


def with_stage_features(
    backbone: nn.Module, features: int, row: BackboneRow, config: ModelConfig
) -> tuple[nn.Module, int]:
    """The backbone of `row` with the features that `config` asks for, and their number. features: the number of its
    own. Raises UserError where a stage has no maps."""
    if not config.feature_stages:
        return backbone, features
    if row.parts:
        assert isinstance(backbone, JoinedBackbones), "that is what is built for a row of several backbones"
        parts = [
            with_stage_features(part, 0, each, config)
            for part, each in zip(backbone.children(), row.parts, strict=True)
        ]
        names = [name for name, _ in backbone.named_children()]
        return JoinedBackbones(names, [part for part, _ in parts]), features + sum(more for _, more in parts)
    stages = stages_of(backbone)
    widths = stage_widths(row, config.feature_stages)
    names = [stages[number - 1][0] for number in config.feature_stages]
    more = sum(widths) * NUMBERS_A_CHANNEL[config.feature_stats]
    return StageFeatures(backbone, names, FEATURE_STATS[config.feature_stats]), features + more


def feature_count(row: BackboneRow, config: ModelConfig) -> int:
    """How many features the heads see. Raises UserError where a stage has no maps."""
    row = complete_row(row)
    own = meta_backbone(row)[1]
    numbers = NUMBERS_A_CHANNEL[config.feature_stats]
    return own + sum(numbers * sum(stage_widths(part, config.feature_stages)) for part in row.singles)


@lru_cache(maxsize=64)
def stage_widths(row: BackboneRow, numbers: tuple[int, ...]) -> tuple[int, ...]:
    """The number of channels behind each of these stages, counted from 1, of a single backbone.

    Raises UserError for a stage that the backbone does not have, or whose output is not maps.
    """
    if not numbers:
        return ()
    row = complete_row(row)
    names = [name for name, _ in stages_of(meta_backbone(row)[0])]
    if numbers[-1] > len(names):
        rule = f"must be numbers of {row.name}'s stages, of which there are {len(names)} ({', '.join(names)})"
        raise UserError(Problem("model.feature_stages", rule, str(list(numbers))))
    side = max(row.native_size, row.least_side)
    found = []
    for number in numbers:
        try:
            shape = map_shape(row, side, number)
        except ValueError as error:
            shape, reason = (), str(error)
        else:
            reason = f"its output has the shape {shape}"
        if len(shape) != 3:
            rule = f"must be stages of {row.name} that make maps of channels, height and width ({reason})"
            raise UserError(Problem("model.feature_stages", rule, str(number)))
        found.append(shape[0])
    return tuple(found)
