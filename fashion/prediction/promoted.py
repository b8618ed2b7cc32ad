"""The promoted model: what `best/model.json` says of it, and the network rebuilt from that folder alone, wherever it
was copied to."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from fashion.config.trial import TrialConfig, read_config
from fashion.data.layout import Attribute
from fashion.errors import CheckpointError, Problem
from fashion.files import parse, whole
from fashion.model.folds.fold_mean import build_promoted
from fashion.record.trial import metrics_from_json
from fashion.record.validate import attributes_of, check, metric, multi_label_of

FORMAT = 1
DESCRIPTION = "model.json"


@dataclass(frozen=True)
class Promoted:
    """What `best/model.json` says of the weights beside it.

    The weights are those of `epoch` (from 1) of `trial`, and `metrics` are that epoch's: losses in nats, shares in [0,
    1]. `weights_digest` is their SHA-256. `shares`: how often each class of each head occurs among the labelled
    training images, in [0, 1], of a multi-label head among all classes that they have; None where that is not
    recorded."""

    run: str
    trial: int
    epoch: int
    config: TrialConfig
    attributes: tuple[Attribute, ...]
    data_fingerprint: str
    metrics: dict[str, float]
    weights_digest: str = ""
    shares: tuple[tuple[float, ...], ...] | None = None

    @property
    def class_counts(self) -> tuple[int, ...]:
        return tuple(len(attribute.classes) for attribute in self.attributes)

    @property
    def multi_label(self) -> tuple[bool, ...]:
        return tuple(attribute.multi_label for attribute in self.attributes)

    def identity(self) -> dict[str, Any]:
        """What names the model, for a record of what it predicted."""
        return {"run": self.run, "trial": self.trial, "epoch": self.epoch, "weights": self.weights_digest}


def load_promoted(
    directory: str | Path, device: torch.device | str = "cpu", description: str = DESCRIPTION
) -> tuple[nn.Module, Promoted]:
    """Rebuild the promoted model on `device`, in evaluation mode. No code in the files is executed. description: the
    file that says what it is; a member of an ensemble has one of its own.

    Raises CheckpointError when a file is missing or damaged, or when the two files do not belong together.
    """
    directory = Path(directory)
    place = directory / description
    promoted, weights, digest = _description(read_description(place), place)
    path = directory / weights
    if not os.path.isfile(path):
        raise CheckpointError(_problem(path, "is missing", fix=f"{description} and {weights} belong in one folder"))
    if (found := _sha256(path)) != digest:
        raise CheckpointError(
            _problem(path, f"its sha256 must be {digest}", found, "Promote again: fashion-sweep best")
        )
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(_problem(path, "must be a whole safetensors file", str(error))) from error
    model = build_promoted(promoted.config, promoted.class_counts, promoted.multi_label)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:  # names or shapes of tensors
        raise CheckpointError(
            _problem(path, f"does not fit {promoted.config.model.backbone}", str(error)[:500])
        ) from error
    if promoted.config.train.layout != "nchw":
        model = model.to(memory_format=torch.channels_last)
    return model.to(device).eval(), promoted


def read_description(place: Path) -> Any:
    """The JSON of a file that says what is promoted. Raises CheckpointError where it is missing or no JSON."""
    try:
        return parse(place.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(
            _problem(place, "is missing", fix="Promote a run's winner first: fashion-sweep best")
        ) from None
    except (ValueError, IsADirectoryError) as error:
        raise CheckpointError(_problem(place, "must be JSON", str(error))) from error


def described(place: Path) -> Promoted:
    """What a file says of the weights beside it, which are not looked at. Raises CheckpointError."""
    return _description(read_description(place), place)[0]


def require_attributes(promoted: Promoted, attributes: Sequence[Attribute], place: str) -> None:
    """Raise CheckpointError unless a data set has the attributes and classes that the model was trained for."""
    if tuple(attributes) != promoted.attributes:
        rule = f"must have the model's attributes: {_shown(promoted.attributes)}"
        raise CheckpointError(
            _problem(place, rule, _shown(attributes), "Predict a folder of its images instead: --images")
        )


def _description(content: Any, place: Path) -> tuple[Promoted, str, str]:
    """The promoted model, the name of its weights' file, and that file's sha256."""
    found = content.get("format") if isinstance(content, dict) else type(content).__name__
    if found != FORMAT:
        raise CheckpointError(_problem(place, f"this version reads format {FORMAT}", repr(found)))
    try:
        named = zip(attributes_of(content["attributes"]), multi_label_of(content["attributes"]), strict=True)
        attributes = tuple(Attribute(name, classes, multi) for (name, classes), multi in named)
        if not attributes:
            raise ValueError("attributes: there are none")
        check(content, {"trial": whole(0), "epoch": whole(1)})
        check(content["metrics"], dict.fromkeys(content["metrics"], metric))
        promoted = Promoted(
            run=str(content["run"]),
            trial=int(content["trial"]),
            epoch=int(content["epoch"]),
            config=read_config(content["config"]),
            attributes=attributes,
            data_fingerprint=str(content["data_fingerprint"]),
            metrics=metrics_from_json(content["metrics"]),
            weights_digest=str(content["weights"]["sha256"]),
            shares=shares_of(content.get("label_counts"), attributes),
        )
        weights, digest = str(content["weights"]["file"]), promoted.weights_digest
    except ValidationError as error:
        raise CheckpointError(_problem(place, "its configuration is not valid in this version", str(error))) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(_problem(place, "must describe a promoted model", repr(error))) from error
    if Path(weights).name != weights or "\0" in weights:
        raise CheckpointError(_problem(place, "the weights must be a file beside it", weights))
    return promoted, weights, digest


def shares_of(counts: Any, attributes: Sequence[Attribute]) -> tuple[tuple[float, ...], ...] | None:
    """Each class's share of the training images; None where the counts are missing or are another data set's."""
    train = counts.get("train") if isinstance(counts, dict) else None
    if not isinstance(train, list) or len(train) != len(attributes):
        return None
    shares = []
    for head, attribute in zip(train, attributes, strict=True):
        if not isinstance(head, list) or len(head) != len(attribute.classes) or not all(map(whole(0), head)):
            return None
        shares.append(tuple(count / max(1, sum(head)) for count in head))
    return tuple(shares)


def _problem(place: Path | str, rule: str, value: str = "", fix: str = "") -> Problem:
    return Problem(str(place), rule, value, fix)


def _shown(attributes: Sequence[Attribute]) -> str:
    return ", ".join(
        f"{attribute.name} ({len(attribute.classes)}{', multi-label' if attribute.multi_label else ''})"
        for attribute in attributes
    )


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
