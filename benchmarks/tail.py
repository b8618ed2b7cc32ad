"""Seconds of an epoch of a tail, trained on cached maps, and of the same stages frozen from pixels at the same size.

EfficientNet-Lite1 with ImageNet weights at 160 px, cut behind its fifth block and in the long form behind its third,
too, through the real `fit`, checkpoints and all, one thread each. The maps are computed once for all trials and have a
row of their own.

ratio: the trial from pixels to the tail, of the same round; both reach the same val_loss, which has a row, too. The
target is for the deeper cut, which sweeps/tail_cpu.yaml has as well.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.case import Case, first_images, threads
from benchmarks.rows import Row, in_turn, median_ratio, medians, seconds, tell
from fashion.config.trial import TrialConfig
from fashion.data.layout import read_dataset
from fashion.model.pretrained.weights import resolve_weights
from fashion.training.feed import TrainingData, with_cached
from fashion.training.loop import TrialInputs, fit

CASE = Case("efficientnet_lite1", 160, 160, 32)
CUTS = {5: "the third block", 7: "the fifth block"}
FASTER = 2.0
ROUNDS = 3


def run(full: bool, data: Path) -> list[Row]:
    dataset = read_dataset(data)
    images, cuts = (2_000, list(CUTS)) if full else (160, [max(CUTS)])
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="tail-") as name, threads(1):
        folder = Path(name)
        found = first_images(dataset, CASE, images, images // 5, folder / "cache")
        for cut in cuts:
            rows += behind(cut, images, found, folder)
    return rows


def behind(cut: int, images: int, found: TrainingData, folder: Path) -> list[Row]:
    """The rows of one cut."""
    where = CUTS[cut]
    tail, pixels = configured("tail", cut), configured("full", cut)
    weights = resolve_weights(tail.model)
    losses: dict[str, float] = {}
    tell(f"maps of {images} images behind {where}")
    computed: list[TrainingData] = []
    once = seconds(lambda: computed.append(with_cached(found, tail, weights)))

    def contender(kind: str, config: TrialConfig, given: TrainingData) -> Callable[[], float]:
        def trial() -> float:
            place = Path(tempfile.mkdtemp(prefix="trial-", dir=folder)) / "0000"
            reports = list(fit(TrialInputs(config, given, weights, place)))
            losses[kind] = reports[-1].metrics["val_loss"]
            return reports[-1].seconds

        return trial

    figures = in_turn(
        {"tail": contender("tail", tail, computed[0]), "pixels": contender("pixels", pixels, found)}, ROUNDS
    )
    times, ratio = medians(figures), median_ratio(figures, "pixels", "tail")
    shown = f"{images} images, cut behind {where}"
    loss, deep = losses["tail"], cut == max(CUTS)
    target, met = (f"ratio >= {FASTER:g}", ratio >= FASTER) if deep else (None, None)
    return [
        Row("tail", f"an epoch from pixels, {shown}", times["pixels"], "s"),
        Row("tail", f"an epoch of the tail, {shown}", times["tail"], "s", ratio, target, met),
        Row("tail", f"maps, once for all trials, cut behind {where}", once, "s"),
        Row("tail", f"val_loss of the tail, cut behind {where}", loss, "nats", loss / losses["pixels"]),
    ]


def configured(mode: str, cut: int) -> TrialConfig:
    """One epoch without augmentation or dropout, so that both see the same numbers."""
    config = CASE.config(weights="imagenet")
    more = {"mode": mode, "freeze_stages": cut, "optimizer": "adamw", "lr": 3e-4, "precision": "fp32"}
    return TrialConfig.model_validate(
        {
            "data": config.data.model_dump() | {"flip": 0.0},
            "model": config.model.model_dump() | {"dropout": 0.0, "drop_path": 0.0},
            "train": config.train.model_dump() | more,
        }
    )
