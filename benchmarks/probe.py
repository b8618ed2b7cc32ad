"""Seconds of a frozen-backbone trial: its heads trained on cached features, and the same trial trained from pixels.

EfficientNet-Lite0 with ImageNet weights at 160 px, both through the real `fit`, checkpoints and all, one thread each.
The features are computed once for all trials; those of the training images have rows of their own, in fp32 and, where
the CPU computes in it, in bf16.

ratio: the trial from pixels to the probe, of the same round; both reach the same val_loss, which has a row, too. For
features: fp32 to bf16.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import torch

from benchmarks.case import Case, first_images, threads
from benchmarks.rows import Row, in_turn, median_ratio, medians, seconds, tell
from fashion.config.trial import TrialConfig
from fashion.data.layout import read_dataset
from fashion.data.pack import Pack
from fashion.model.precision import computes_bf16
from fashion.model.pretrained.resolved_weights import ResolvedWeights
from fashion.model.pretrained.weights import resolve_weights
from fashion.training.features import features_path, open_or_compute
from fashion.training.feed import TrainingData, with_cached
from fashion.training.loop import TrialInputs, fit

CASE = Case("efficientnet_lite0", 160, 160, 32)
FASTER = 20.0
FP32 = "fp32"
CPU = torch.device("cpu")


def run(full: bool, data: Path) -> list[Row]:
    dataset = read_dataset(data)
    images, epochs, rounds = (2_000, 5, 3) if full else (320, 2, 3)
    probe, pixels = configured("probe", epochs), configured("full", epochs)
    weights = resolve_weights(probe.model)
    losses: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="probe-") as name, threads(1):
        folder = Path(name)
        found = first_images(dataset, CASE, images, images // 5, folder / "cache")
        computed = with_cached(found, probe, weights)
        tell(f"features of {images} images")
        features = in_turn({name: partial(passed, found.train, name, weights) for name in precisions()}, rounds)

        def trial(kind: str, config: TrialConfig, given: TrainingData) -> float:
            place = Path(tempfile.mkdtemp(prefix="trial-", dir=folder)) / "0000"

            def train() -> None:
                losses[kind] = [
                    report.metrics["val_loss"] for report in fit(TrialInputs(config, given, weights, place))
                ][-1]

            return seconds(train)

        figures = in_turn(
            {
                "probe": lambda: trial("probe", probe, computed),
                "pixels": lambda: trial("pixels", pixels, found),
            },
            rounds,
        )
    times, ratio = medians(figures), median_ratio(figures, "pixels", "probe")
    shown = f"{images} images, {epochs} epochs"
    return [
        Row("probe", f"from pixels, {shown}", times["pixels"], "s"),
        Row("probe", f"probe, {shown}", times["probe"], "s", ratio, f"ratio >= {FASTER:g}", ratio >= FASTER),
        *(
            Row("probe", f"features in {name}, once for all trials", value, "s", median_ratio(features, FP32, name))
            for name, value in medians(features).items()
        ),
        Row("probe", "val_loss from pixels", losses["pixels"], "nats"),
        Row("probe", "val_loss of the probe", losses["probe"], "nats", losses["probe"] / losses["pixels"]),
    ]


def precisions() -> list[str]:
    """In what features are made here."""
    return [FP32, "bf16"] if computes_bf16(CPU) else [FP32]


def passed(train: Pack, precision: str, weights: ResolvedWeights) -> float:
    """Seconds in which the features of the training images are made in this precision."""
    config = configured("probe", 1)
    config = config.model_copy(update={"train": config.train.model_copy(update={"precision": precision})})
    for bf16 in (False, True):  # those in the other precision would serve as well
        features_path(train, config, weights, False, bf16).unlink(missing_ok=True)
    return seconds(lambda: open_or_compute(train, config, weights, split="train"))


def configured(mode: str, epochs: int) -> TrialConfig:
    config = CASE.config()
    train = config.train.model_copy(
        update={"mode": mode, "freeze_backbone": True, "epochs": epochs, "optimizer": "adamw"}
    )
    data = config.data.model_copy(update={"flip": 0.5, "crop_mode": "center", "train_crop": None})
    model = config.model.model_copy(update={"weights": "imagenet"})
    return config.model_copy(update={"train": train.model_copy(update={"lr": 0.003}), "data": data, "model": model})
