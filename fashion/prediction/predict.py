"""Prediction with a promoted checkpoint: the model is rebuilt from `best/` alone, wherever that folder was copied to.

Pixels, batches and arithmetic are those of validation in training, so predicting the validation split gives the
val_accuracy that the trial recorded, exactly.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file

from fashion.config import TrialConfig, read_config
from fashion.data.batches import Normalization, Worker, eval_batches
from fashion.data.layout import Attribute
from fashion.data.pack import Pack
from fashion.errors import CheckpointError, Problem
from fashion.files import parse, whole
from fashion.model.backbones import row
from fashion.model.classifier import MultiHeadClassifier, build_model, normalization
from fashion.record.trial import metrics_from_json
from fashion.record.validate import attributes_of, check, metric
from fashion.training.evaluate import evaluation_batch_size, log_probabilities, on_host, with_mirrors

FORMAT = 1
DESCRIPTION = "model.json"


@dataclass(frozen=True)
class Promoted:
    """What `best/model.json` says of the weights beside it. `metrics` are those of `epoch` of `trial`."""

    run: str
    trial: int
    epoch: int
    config: TrialConfig
    attributes: tuple[Attribute, ...]
    data_fingerprint: str
    metrics: dict[str, float]

    @property
    def class_counts(self) -> tuple[int, ...]:
        return tuple(len(attribute.classes) for attribute in self.attributes)


@dataclass(frozen=True, eq=False)
class Predictions:
    """`classes` (N, heads) int64 class indices, `probabilities[head]` (N, classes) float32, in the order of `names`."""

    names: tuple[str, ...]
    classes: NDArray[np.int64]
    probabilities: tuple[NDArray[np.float32], ...]


def load_promoted(directory: str | Path, device: torch.device | str = "cpu") -> tuple[MultiHeadClassifier, Promoted]:
    """Rebuild the promoted model, in evaluation mode on `device`, without executing anything that the files hold.

    Raises CheckpointError when a file is missing, damaged, or does not belong to the other.
    """
    directory = Path(directory)
    place = directory / DESCRIPTION
    try:
        content = parse(place.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(
            _problem(place, "is missing", fix="Promote a run's winner first: fashion-sweep best")
        ) from None
    except (ValueError, IsADirectoryError) as error:
        raise CheckpointError(_problem(place, "must be JSON", str(error))) from error
    promoted, weights, digest = _description(content, place)
    path = directory / weights
    if not os.path.isfile(path):
        raise CheckpointError(_problem(path, "is missing", fix=f"{DESCRIPTION} and {weights} belong in one folder"))
    if (found := _sha256(path)) != digest:
        raise CheckpointError(
            _problem(path, f"its sha256 must be {digest}", found, "Promote again: fashion-sweep best")
        )
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(_problem(path, "must be a whole safetensors file", str(error))) from error
    model = build_model(promoted.config.model, promoted.class_counts, None)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:  # names or shapes of tensors
        raise CheckpointError(
            _problem(path, f"does not fit {promoted.config.model.backbone}", str(error)[:500])
        ) from error
    if promoted.config.train.layout != "nchw":
        model = model.to(memory_format=torch.channels_last)
    return model.to(device).eval(), promoted


def require_attributes(promoted: Promoted, attributes: Sequence[Attribute], place: str) -> None:
    """Raise CheckpointError unless a data set has the attributes and classes that the model was trained for."""
    if tuple(attributes) != promoted.attributes:
        rule = f"must have the model's attributes: {_shown(promoted.attributes)}"
        raise CheckpointError(
            _problem(place, rule, _shown(attributes), "Predict a folder of its images instead: --images")
        )


def predict(
    model: MultiHeadClassifier,
    promoted: Promoted,
    images: Pack | NDArray[np.uint8],
    names: Sequence[str] | None = None,
    batch_size: int | None = None,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Predictions:
    """Predict a pack, or an array (N, S, S, 3) of RGB bytes with S = config.data.resize, in order and in fp32.

    `names` default to the pack's, else to row numbers. `batch_size` defaults to that of validation in training; a
    smaller one saves memory and may change the last bit of a probability. `progress(done, total)` counts images.
    """
    config = promoted.config
    size = batch_size or evaluation_batch_size(config.train.batch_size, config.data.crop, device)
    total = len(images)
    listed = (
        tuple(names)
        if names is not None
        else tuple(images.names if isinstance(images, Pack) else map(str, range(total)))
    )
    if len(listed) != total:
        raise ValueError(f"{len(listed)} names for {total} images")
    channels = Normalization(*normalization(config.data.normalize, row(config.model.backbone)))
    model.eval()
    # Classes from the log-probabilities, as validation counts them: exp may round two close ones to one value.
    classes = [np.empty((0, len(promoted.class_counts)), np.int64)]
    probabilities = [[np.empty((0, count), np.float32) for count in promoted.class_counts]]
    done = 0
    batches = eval_batches(images, config.data, channels, size, Worker(device=torch.device(device)))
    outputs = (log_probabilities(model, batch.images, m) for batch, m in with_mirrors(batches, config.data.eval_flip))
    for best, *heads in on_host(
        (torch.stack([head.argmax(1) for head in heads], dim=1), *(head.exp() for head in heads)) for heads in outputs
    ):
        classes.append(best)
        probabilities.append(heads)
        done += len(best)
        if progress is not None:
            progress(done, total)
    return Predictions(
        listed, np.concatenate(classes), tuple(np.concatenate(parts) for parts in zip(*probabilities, strict=True))
    )


def accuracy(predictions: Predictions, labels: NDArray[np.int64]) -> float:
    """Correct labels / (N x heads), as `val_accuracy` counts them; `labels` has shape (N, heads)."""
    if labels.shape != predictions.classes.shape:
        raise ValueError(f"labels {labels.shape} for predictions {predictions.classes.shape}")
    return int((predictions.classes == labels).sum()) / labels.size


def _description(content: Any, place: Path) -> tuple[Promoted, str, str]:
    """The promoted model, its weights' file name and their sha256."""
    found = content.get("format") if isinstance(content, dict) else type(content).__name__
    if found != FORMAT:
        raise CheckpointError(_problem(place, f"this version reads format {FORMAT}", repr(found)))
    try:
        attributes = tuple(Attribute(*each) for each in attributes_of(content["attributes"]))
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
        )
        weights, digest = str(content["weights"]["file"]), str(content["weights"]["sha256"])
    except ValidationError as error:
        raise CheckpointError(_problem(place, "its configuration is not valid in this version", str(error))) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(_problem(place, "must describe a promoted model", repr(error))) from error
    if Path(weights).name != weights or "\0" in weights:
        raise CheckpointError(_problem(place, "the weights must be a file beside it", weights))
    return promoted, weights, digest


def _problem(place: Path | str, rule: str, value: str = "", fix: str = "") -> Problem:
    return Problem(str(place), rule, value, fix)


def _shown(attributes: Sequence[Attribute]) -> str:
    return ", ".join(f"{attribute.name} ({len(attribute.classes)})" for attribute in attributes)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
