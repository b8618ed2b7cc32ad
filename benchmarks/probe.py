"""Seconds of a frozen-backbone trial: its heads trained on cached features, and the same trial trained from pixels.

EfficientNet-Lite0 with ImageNet weights at 160 px, both through the real `fit`, checkpoints and all, one thread each.
The features are computed once for all trials and have a row of their own.

ratio: the trial from pixels to the probe, of the same round; both reach the same val_loss, which has a row, too.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.case import Case, first_images, threads
from benchmarks.rows import Row, in_turn, median_ratio, medians, seconds, tell
from fashion.config.trial import TrialConfig
from fashion.data.layout import read_dataset
from fashion.model.pretrained.weights import resolve_weights
from fashion.training.feed import TrainingData, with_cached
from fashion.training.loop import TrialInputs, fit

CASE = Case("efficientnet_lite0", 160, 160, 32)
FASTER = 20.0


def run(full: bool, data: Path) -> list[Row]:
    dataset = read_dataset(data)
    images, epochs, rounds = (2_000, 5, 3) if full else (320, 2, 3)
    probe, pixels = configured("probe", epochs), configured("full", epochs)
    weights = resolve_weights(probe.model)
    losses: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="probe-") as name, threads(1):
        folder = Path(name)
        found = first_images(dataset, CASE, images, images // 5, folder / "cache")
        tell(f"features of {images} images")
        computed: list[TrainingData] = []
        once = seconds(lambda: computed.append(with_cached(found, probe, weights)))

        def trial(kind: str, config: TrialConfig, given: TrainingData) -> float:
            place = Path(tempfile.mkdtemp(prefix="trial-", dir=folder)) / "0000"

            def train() -> None:
                losses[kind] = [
                    report.metrics["val_loss"] for report in fit(TrialInputs(config, given, weights, place))
                ][-1]

            return seconds(train)

        figures = in_turn(
            {
                "probe": lambda: trial("probe", probe, computed[0]),
                "pixels": lambda: trial("pixels", pixels, found),
            },
            rounds,
        )
    times, ratio = medians(figures), median_ratio(figures, "pixels", "probe")
    shown = f"{images} images, {epochs} epochs"
    return [
        Row("probe", f"from pixels, {shown}", times["pixels"], "s"),
        Row("probe", f"probe, {shown}", times["probe"], "s", ratio, f"ratio >= {FASTER:g}", ratio >= FASTER),
        Row("probe", "features, once for all trials", once, "s"),
        Row("probe", "val_loss from pixels", losses["pixels"], "nats"),
        Row("probe", "val_loss of the probe", losses["probe"], "nats", losses["probe"] / losses["pixels"]),
    ]


def configured(mode: str, epochs: int) -> TrialConfig:
    config = CASE.config()
    train = config.train.model_copy(
        update={"mode": mode, "freeze_backbone": True, "epochs": epochs, "optimizer": "adamw"}
    )
    data = config.data.model_copy(update={"flip": 0.5, "crop_mode": "center", "train_crop": None})
    model = config.model.model_copy(update={"weights": "imagenet"})
    return config.model_copy(update={"train": train.model_copy(update={"lr": 0.003}), "data": data, "model": model})
