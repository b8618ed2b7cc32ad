"""What every section of a configuration is made of."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

# What a record that lacks a field means, by "section.field" (`train.lr`, `data.fit`), where that is not the field's
# default. A record lacks a field if it was written before the field existed. So a new field whose default changes what
# a trial does gets an entry here, with the value that gives the behaviour of the versions before it; a new field whose
# default is that behaviour needs none.
OF_ITS_TIME: dict[str, Any] = {
    "data.orientation": "ignore",
    "data.depth": "maximum",
    "train.decay_biases": "optimizer",
}

Probability = Annotated[float, Field(ge=0.0, le=1.0)]


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)
