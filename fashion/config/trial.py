"""A trial's configuration: frozen, validated, complete. In a sweep spec every field of `data`, `model` and `train`,
except the data root, may be a distribution; `fashion.spec` samples them into a `TrialConfig`.

Recorded configurations outlive the version that wrote them: they are read by `read_config`, and compared as objects.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, Field

from fashion.config.base import OF_ITS_TIME, Frozen
from fashion.config.data import DataConfig
from fashion.config.model import ModelConfig
from fashion.config.train import TrainConfig


class TrialConfig(Frozen):
    """One sample of the search space. A trial is a pure function of it, the data and the code."""

    data: DataConfig
    model: ModelConfig
    train: TrainConfig
    seed: int = Field(0, ge=0, lt=2**31, description="seeds weights, order and augmentation")

    def anywhere(self) -> TrialConfig:
        """The same without where the data set lies, in which two trials that are the same may differ."""
        return self.model_copy(update={"data": self.data.model_copy(update={"root": ""})})


def of_its_time(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """A recorded configuration or spec with the values of OF_ITS_TIME for the fields that it lacks. `recorded` maps
    sections to mappings of fields; a section that is missing, or is no mapping, is left as it is."""
    complete = dict(recorded)
    for name, value in OF_ITS_TIME.items():
        section, field = name.split(".")
        if isinstance(complete.get(section), Mapping):
            complete[section] = {field: value, **complete[section]}
    return complete


def read_config(recorded: Any) -> TrialConfig:
    """A configuration that this or an earlier version recorded, as a mapping or as JSON text.

    Raises pydantic's ValidationError (a ValueError) for one that is not valid in this version, ValueError for no JSON.
    """
    form = json.loads(recorded) if isinstance(recorded, str) else recorded
    return TrialConfig.model_validate(of_its_time(form) if isinstance(form, Mapping) else form)


def same_anywhere(one: Any, other: Any) -> bool:
    """Whether two recorded configurations are the same trial's, wherever its data set lies. One that is not valid in
    this version is the same as none."""
    try:
        return read_config(_rooted(one)).anywhere() == read_config(_rooted(other)).anywhere()
    except ValueError:
        return False


def _rooted(recorded: Any) -> Any:
    """With some data.root, which a configuration that is compared may lack."""
    if not isinstance(recorded, Mapping) or not isinstance(recorded.get("data"), Mapping):
        return recorded
    return {**recorded, "data": {"root": "", **recorded["data"]}}


def value_lacking(section: Literal["data", "model", "train"], field: str) -> Any:
    """What a record means that lacks this field: the value of its time, else the default. Raises KeyError for a field
    that has neither."""
    sections: dict[str, type[BaseModel]] = {"data": DataConfig, "model": ModelConfig, "train": TrainConfig}
    found = sections[section].model_fields[field]
    if f"{section}.{field}" in OF_ITS_TIME:
        return OF_ITS_TIME[f"{section}.{field}"]
    if found.is_required():
        raise KeyError(f"{section}.{field}")
    return found.default
