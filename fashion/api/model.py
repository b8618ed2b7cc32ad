"""A promoted model, and what it predicts for images in memory or in files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from fashion.api.validation import predicted_columns, predicted_fields
from fashion.bucket.address import is_address, parse_address
from fashion.config.data import Form
from fashion.config.trial import TrialConfig
from fashion.data.images import ORIENTATIONS, load_rgb, resize_square, to_rgb
from fashion.data.layout import Attribute
from fashion.errors import DataError, Problem, RunError
from fashion.files import usable_cpus
from fashion.prediction.ensembles.promoted_ensemble import PromotedEnsemble, read_ensemble
from fashion.prediction.predict import Predictions, predict
from fashion.prediction.promoted import DESCRIPTION, Promoted, load_promoted
from fashion.record.ensembles.promote_ensemble import FOLDER
from fashion.training.evaluate import evaluation_batch_size

# A PIL image of any mode, an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) of uint8, or a file.
ImageLike = Image.Image | NDArray[np.uint8] | str | os.PathLike[str]
# Attribute -> class name -> probability.
Prediction = dict[str, dict[str, float]]
BATCHES_AHEAD = 16  # batches of resized images in memory at a time


class PredictionModel:
    """A promoted model. Its predictions equal `fashion-sweep best --predict --images` for the same images."""

    def __init__(self, network: nn.Module, promoted: Promoted, device: torch.device) -> None:
        self.network = network
        self.promoted = promoted
        self.device = device

    def __repr__(self) -> str:
        heads = ", ".join(attribute.name for attribute in self.attributes)
        return f"<{type(self).__name__} {self.config.model.backbone} on {self.device}: {heads}>"

    @property
    def attributes(self) -> tuple[Attribute, ...]:
        """Name and class names of each head."""
        return self.promoted.attributes

    @property
    def config(self) -> TrialConfig:
        """The configuration that the model was trained with."""
        return self.promoted.config

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics of the promoted epoch: losses in nats, shares in [0, 1]."""
        return dict(self.promoted.metrics)

    def predict(self, images: Sequence[ImageLike]) -> list[Prediction]:
        """For each image, in order, {attribute: {class name: probability}}; the probabilities of an attribute sum to 1,
        unless it is multi-label: then each class has a probability of its own.

        The images may be of different kinds and sizes: each is converted to RGB, resized, cropped and normalised as in
        training. Raises DataError listing every image that can't be used.
        """
        found = self._predictions(images)
        heads = [
            (attribute, values.tolist()) for attribute, values in zip(self.attributes, found.probabilities, strict=True)
        ]
        return [
            {attribute.name: dict(zip(attribute.classes, rows[index], strict=True)) for attribute, rows in heads}
            for index in range(len(found.names))
        ]

    def predict_table(self, images: Sequence[ImageLike]) -> pa.Table:
        """As `predict`, one row per image: `image` (its path, or its place in the list) and for each attribute
        NAME/predicted (the most probable class; for a multi-label attribute a list of those that are above 0.5) and
        NAME/probabilities (float32, in the order of its classes)."""
        found = self._predictions(images)
        columns: list[pa.Array] = [pa.array(found.names, pa.string())]
        fields = [pa.field("image", pa.string())]
        for attribute, probabilities in zip(self.attributes, found.probabilities, strict=True):
            names = np.array(attribute.classes, dtype=object)
            columns += predicted_columns(names, probabilities, attribute.multi_label)
            fields += predicted_fields(attribute.name, attribute.classes, attribute.multi_label)
        return pa.Table.from_arrays(columns, schema=pa.schema(fields))

    def _predictions(self, images: Sequence[ImageLike]) -> Predictions:
        if isinstance(images, str | os.PathLike | Image.Image) or getattr(images, "ndim", 4) < 4:
            rule, kind = "must be a list of images", type(images).__name__
            raise DataError("There is nothing to predict:", [Problem("images", rule, kind, "Write [image]")])
        listed = list(images)
        data = self.config.data
        # Whole batches at a time, so that each image is in the batch that it would be in if all were resized at once.
        many = BATCHES_AHEAD * evaluation_batch_size(self.config.train.batch_size, data.crop, self.device)
        parts = []
        for start in range(0, len(listed), many) or [0]:
            part = listed[start : start + many]
            names = [_name(image, start + index) for index, image in enumerate(part)]
            pixels = self._pixels(part, start)
            parts.append(predict(self.network, self.promoted, pixels, names, device=self.device))
        return Predictions(
            tuple(name for part in parts for name in part.names),
            np.concatenate([part.classes for part in parts]),
            tuple(np.concatenate(heads) for heads in zip(*(part.probabilities for part in parts), strict=True)),
        )

    def _pixels(self, images: Sequence[ImageLike], start: int) -> NDArray[np.uint8]:
        """The images as squares (N, S, S, 3), one thread per CPU. start: the first one's place in the user's list."""
        data = self.config.data
        pixels = np.empty((len(images), data.resize, data.resize, 3), np.uint8)

        def resize(index: int) -> Problem | None:
            try:
                rgb = _rgb(images[index], f"images[{start + index}]", data.form)
                pixels[index] = resize_square(rgb, data.resize, data.fit, data.interpolation)
            except DataError as error:
                return error.problems[0]
            return None

        with ThreadPoolExecutor(usable_cpus()) as threads:
            problems = [problem for problem in threads.map(resize, range(len(images))) if problem is not None]
        if problems:
            raise DataError("Images can't be used:", problems)
        return pixels


class EnsembleModel(PredictionModel):
    """A promoted ensemble, which predicts as one model: the mean of its members' probabilities, scaled by a temperature
    for each attribute. `network`, `promoted` and `config` are those of the member that weighs most, the first."""

    def __init__(self, members: tuple[PredictionModel, ...], ensemble: PromotedEnsemble) -> None:
        first = members[0]
        super().__init__(first.network, first.promoted, first.device)
        self.members = members
        self.ensemble = ensemble

    def __repr__(self) -> str:
        names = ", ".join(member.config.model.backbone for member in self.members)
        heads = ", ".join(attribute.name for attribute in self.attributes)
        return f"<{type(self).__name__} {names} on {self.device}: {heads}>"

    @property
    def metrics(self) -> dict[str, float]:
        """The cross-fitted metrics of the ensemble: losses in nats, shares in [0, 1]."""
        return dict(self.ensemble.metrics)

    def _predictions(self, images: Sequence[ImageLike]) -> Predictions:
        found = [member._predictions(images) for member in self.members]
        return Predictions(found[0].names, *self.ensemble.together([each.probabilities for each in found]))


def load_model(location: str | Path, device: torch.device | str = "auto") -> PredictionModel:
    """Load a promoted model from its folder (RUN/best, wherever it was copied to), from a run's folder, or from a run's
    or its best folder's address in a bucket (s3://, gs://). RUN/ensemble gives an `EnsembleModel`.

    device: a torch device; auto is a GPU where there is one.

    Raises:
        CheckpointError: nothing is promoted there, or a file is missing or damaged.
        RunError: the address or the device is not a valid one.
        StorageError: the bucket can't be read.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(device)
    except RuntimeError as error:
        raise RunError(Problem("device", "must be auto or a torch device", repr(device))) from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise RunError(Problem("device", "must be on this machine", repr(str(device)), "auto takes what is there"))
    folder = _folder(str(location))
    ensemble = read_ensemble(folder)
    if ensemble is None:
        return PredictionModel(*load_promoted(folder, device), device)
    members = tuple(PredictionModel(*load_promoted(folder, device, name), device) for name in ensemble.descriptions)
    return EnsembleModel(members, ensemble)


def _folder(location: str) -> Path:
    """The promoted folder on this machine."""
    if is_address(location):
        from fashion.prediction.write import BEST, fetch_promoted
        from fashion.storage.working_copy import working_copy

        place = location.rstrip("/")
        name = FOLDER if place.endswith(f"/{FOLDER}") else BEST
        try:
            address = parse_address(place.removesuffix(f"/{name}"))
        except ValueError as error:
            raise RunError(Problem("location", f"must {error}", repr(location))) from None
        folder = working_copy(address) / name
        fetch_promoted(address, folder)
        return folder
    path = Path(os.path.expanduser(location))
    in_run = not (path / DESCRIPTION).is_file() and (path / "manifest.json").is_file()
    return path / "best" if in_run else path


def _name(image: ImageLike, index: int) -> str:
    return os.fspath(image) if isinstance(image, str | os.PathLike) else str(index)


def _rgb(image: ImageLike, place: str, form: Form) -> Image.Image:
    """An RGB image of anything that `predict` takes. Raises DataError for anything else."""
    if isinstance(image, str | os.PathLike):
        return load_rgb(os.fspath(image), form.orientation, form.depth)
    rule, got, fix = "must be a PIL image, an array or a path", type(image).__name__, ""
    if isinstance(image, np.ndarray):
        image = image[:, :, 0] if image.ndim == 3 and image.shape[2] == 1 else image
        shaped = image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (3, 4))
        if image.dtype == np.uint8 and shaped and image.size:
            return to_rgb(Image.fromarray(np.ascontiguousarray(image)))
        rule, got = "an array must be uint8 of shape (H, W), (H, W, 3) or (H, W, 4)", f"{image.dtype} {image.shape}"
        fix = "Scale values in [0, 1] by 255 and round them" if np.issubdtype(image.dtype, np.floating) else ""
    elif isinstance(image, Image.Image):
        try:
            image.load()
            return to_rgb(ORIENTATIONS[form.orientation](image), form.depth)
        except Exception as error:
            # A PIL image may not be decoded yet: damaged bytes make Pillow raise almost any exception.
            rule, got = "must be a complete image", str(error)
    raise DataError("An image can't be used:", [Problem(place, rule, got, fix)])
