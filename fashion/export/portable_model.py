"""The promoted model as one module that other programs can run: from an image's bytes to calibrated probabilities.

Everything that validation does to pixels, but decoding and resizing, is in the module: crop, scale, normalisation, and
the mean over several crops and the mirrored image where the trial was evaluated so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from fashion.api.recorded_run import RecordedRun
from fashion.config.data import DataConfig
from fashion.data.images import PAD_COLOUR
from fashion.data.lists import Attribute
from fashion.data.views import crop, places_of, views_of
from fashion.errors import RunError
from fashion.model.backbones import row
from fashion.model.classifier import normalization
from fashion.prediction.promoted import Promoted, load_promoted
from fashion.reading.predicted import head_labels
from fashion.record.trial import TRAINED_ON_VAL
from fashion.statistics.calibration import temperature

INPUT = "images"
TOLERANCE = 1e-4  # by which a probability may differ from PyTorch's
CHECKED = (1, 2, 7)  # batch sizes at which an exported file is compared with PyTorch


class PortableModel(nn.Module):
    """Images (N, S, S, 3) uint8, S = data.resize, to one (N, classes) float32 of probabilities for each attribute.

    temperatures: one for each head. An attribute of one label has a softmax, one of several a sigmoid.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, model: nn.Module, data: DataConfig, channels: tuple[Any, Any],
        attributes: Sequence[Attribute], temperatures: Sequence[float],
    ) -> None:  # fmt: skip
        super().__init__()
        self.model, self.side, self.views = model, data.crop, views_of(data)
        self.multi_label = tuple(each.multi_label for each in attributes)
        self.temperatures = tuple(temperatures)
        for name, values in zip(("mean", "std"), channels, strict=True):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        pixels = {}
        for place in places_of(self.views):
            floats = crop(images, place, self.side).permute(0, 3, 1, 2).float() / 255.0
            pixels[place] = (floats - self.mean) / self.std
        shown = [pixels[view.place].flip(-1) if view.mirrored else pixels[view.place] for view in self.views]
        every = zip(*(self.model(view) for view in shown), strict=True)
        return tuple(self._probabilities(self._mean(views, head), head) for head, views in enumerate(every))

    def _mean(self, views: Sequence[Tensor], head: int) -> Tensor:
        """As in validation, of log-probabilities, or of the logits of an attribute of several labels."""
        if len(views) == 1:
            return views[0]
        scored = [each if self.multi_label[head] else F.log_softmax(each, dim=1) for each in views]
        return torch.stack(scored).mean(0)

    def _probabilities(self, logits: Tensor, head: int) -> Tensor:
        scaled = logits / self.temperatures[head]
        return torch.sigmoid(scaled) if self.multi_label[head] else torch.softmax(scaled, dim=1)


@dataclass(frozen=True)
class PortableExport:
    """A promoted model ready to be written: the module, what is known of it, and its temperatures. note: what the user
    should know besides, or nothing."""

    module: PortableModel
    promoted: Promoted
    temperatures: tuple[float, ...]
    note: str

    @property
    def output_names(self) -> list[str]:
        """An attribute may be called as anything in the graph is, so its output is not called as it is alone."""
        return [f"probabilities/{each.name}" for each in self.promoted.attributes]

    def description(self) -> dict[str, Any]:
        """What stands in the exported file: how to make its input, and what its outputs mean."""
        data, meta = self.promoted.config.data, self.promoted
        return {
            "format": 1,
            "run": meta.run, "trial": meta.trial, "epoch": meta.epoch,
            "data_fingerprint": meta.data_fingerprint,
            "backbone": meta.config.model.backbone,
            "weights_sha256": meta.weights_digest,
            "metrics": {name: value for name, value in meta.metrics.items() if np.isfinite(value)},
            "input": {
                "name": INPUT, "dtype": "uint8", "shape": ["N", data.resize, data.resize, 3], "channels": "RGB",
                "resize": {
                    "side": data.resize, "fit": data.fit, "filter": data.interpolation,
                    "exif_orientation": data.orientation, "pad_colour": list(PAD_COLOUR),
                },
            },
            "inside": {
                "centre_crop": data.crop, "scale": 1 / 255, "mean": self.module.mean.flatten().tolist(),
                "std": self.module.std.flatten().tolist(), "mean_with_mirror": data.eval_flip, "crops": data.eval_crops,
            },
            "outputs": [
                {
                    "name": name, "attribute": each.name, "classes": list(each.classes),
                    "multi_label": each.multi_label, "temperature": fitted,
                    "values": "sigmoid" if each.multi_label else "softmax",
                }
                for name, each, fitted in zip(self.output_names, meta.attributes, self.temperatures, strict=True)
            ],
        }  # fmt: skip

    def example(self, images: int) -> Tensor:
        """(images, S, S, 3) uint8: pixels of every value, alike in every call."""
        side = self.promoted.config.data.resize
        pixels = np.random.default_rng(images).integers(0, 256, (images, side, side, 3), dtype=np.uint8)
        return torch.from_numpy(pixels)


def portable(run: RecordedRun) -> PortableExport:
    """The model in the run's `best/`, on the CPU and in evaluation mode. Without one the winner is promoted first.

    Raises RunError where there is nothing to promote, CheckpointError where a file is missing or damaged.
    """
    if run.promoted is None:
        run.promote()
    model, promoted = load_promoted(run.record.best_dir)
    temperatures, uncalibrated = _temperatures(run, promoted)
    winner = run.best()
    later = ""
    if (winner.trial, winner.epoch) != (promoted.trial, promoted.epoch):
        later = f"the winner is trial {winner.trial}, epoch {winner.epoch}, which `fashion-sweep best` promotes"
    note = "; ".join(filter(None, (uncalibrated, later)))
    data = promoted.config.data
    channels = normalization(data.normalize, row(promoted.config.model.backbone))
    model = model.to(memory_format=torch.contiguous_format)
    module = PortableModel(model, data, channels, promoted.attributes, temperatures).eval()
    return PortableExport(module, promoted, temperatures, note)


def largest_difference(expected: Sequence[Tensor], found: Sequence[NDArray[np.float32] | Tensor]) -> float:
    """The largest difference between two models' outputs for the same images."""
    pairs = zip(expected, found, strict=True)
    return max(float((one - torch.as_tensor(other)).abs().max()) for one, other in pairs)


def _temperatures(run: RecordedRun, promoted: Promoted) -> tuple[tuple[float, ...], str]:
    """A temperature for each head, from the validation predictions that the trial's best epoch left; and a note where
    they are 1 because those can't be had."""
    none = (1.0,) * len(promoted.attributes)
    if promoted.config.train.fit_on != "train":
        return none, f"not calibrated: {TRAINED_ON_VAL}"
    try:
        best = run.trial(promoted.trial).best()
        if best is None or best.epoch != promoted.epoch:
            return none, "not calibrated: only a trial's best epoch has validation predictions"
        found = run.predictions(promoted.trial)
    except RunError as error:
        return none, f"not calibrated: {error}"
    if found.labels_missing:
        return none, f"not calibrated: {found.labels_missing}"
    fitted = [
        1.0 if each.labels is None or own.multi_label else temperature(head_labels(each), each.probabilities)
        for each, own in zip(found.attributes, promoted.attributes, strict=True)
    ]
    return tuple(fitted), ""
