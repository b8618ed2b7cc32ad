"""scikit-learn's digits with three attributes, of which labels are missing and one may be multi-label; and a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fashion.config.trial import TrialConfig
from fashion.data.layout import Dataset, Split
from fashion.data.lists import MISSING, Attribute
from fashion.data.pack import Pack
from fashion.model.pretrained.resolved_weights import ResolvedWeights
from fashion.record.promote import promote
from fashion.record.run import Run
from fashion.sweep.described import labels_of, record_val_labels
from fashion.training.feed import TrainingData
from fashion.training.loop import TrialInputs, fit

DIGIT = Attribute("digit", ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"))
SIZE = Attribute("size", ("small", "large"))
TRAITS = Attribute("traits", ("even", "prime", "round"), multi_label=True)
ROUND = (0, 3, 6, 8, 9)


def digits(root: Path, missing: float = 0.3, attributes: tuple[Attribute, ...] = (DIGIT, SIZE, TRAITS)) -> Dataset:
    """240 training and 90 validation images of 16 px, each label missing at random; of `traits`, a third of those that
    are missing are so on their own, the others with the image's other traits."""
    loaded = pytest.importorskip("sklearn.datasets").load_digits()
    rng = np.random.default_rng(4)
    order = rng.permutation(len(loaded.target))[:330]
    numbers, names = loaded.target[order], [f"img/{row:04d}.png" for row in order]
    (root / "img").mkdir(parents=True)
    for name, pixels in zip(names, loaded.images[order], strict=True):
        grey = Image.fromarray((pixels * 15).astype(np.uint8)).resize((16, 16), Image.Resampling.BILINEAR)
        grey.convert("RGB").save(root / name)
    traits = np.stack([numbers % 2 == 0, np.isin(numbers, (2, 3, 5, 7)), np.isin(numbers, ROUND)], axis=1)
    known: dict[str, Any] = {"digit": numbers[:, None], "size": (numbers > 4)[:, None], "traits": traits}
    columns = []
    for attribute in attributes:
        labels = known[attribute.name].astype(np.int64)
        alone = missing / 3 if attribute.multi_label else 0.0
        labels[rng.random(len(labels)) < missing - alone] = MISSING
        labels[rng.random(labels.shape) < alone] = MISSING
        columns.append(labels)
    labels = np.concatenate(columns, axis=1)
    splits = {"train": slice(0, 240), "val": slice(240, 330)}
    found = {name: Split(name, tuple(names[rows]), labels[rows]) for name, rows in splits.items()}
    return Dataset(root, attributes, found)


def configured(root: Path, data: dict[str, Any] | None = None, **train: Any) -> TrialConfig:
    return TrialConfig.model_validate(
        {
            "data": {"root": str(root), "resize": 16, "crop": 16, "flip": 0.0, **(data or {})},
            "model": {"backbone": "tiny", "weights": "none", "dropout": 0.0},
            "train": {"epochs": 3, "batch_size": 48, "optimizer": "adamw", "lr": 0.01, "precision": "fp32", **train},
            "seed": 3,
        }
    )


def opened(dataset: Dataset, config: TrialConfig) -> TrainingData:
    packs = [Pack.open_or_build(dataset, split, *config.data.form) for split in dataset.packed_splits]
    return TrainingData(packs[0], packs[-1], dataset.attributes, dataset.fingerprint(), folds=dataset.folds)


def labelled_run(folder: Path, dataset: Dataset, config: TrialConfig) -> Run:
    """One real trial, recorded as a sweep records it, and promoted."""
    manifest = {
        "spec": {"data": {}, "model": {}, "train": {}, "search": {"trials": 1}},
        "data_root": str(dataset.root),
        "data_fingerprint": dataset.fingerprint(),
        "data_form": dataset.described(),
        **labels_of(dataset),
    }
    run = Run.create(folder, "sweep", manifest)
    record_val_labels(run, dataset)
    run.record_trial(0, config.model_dump(mode="json"))
    run.record_attempt(0)
    data = opened(dataset, config)
    for report in fit(TrialInputs(config, data, ResolvedWeights("none"), run.trial_dir(0))):
        run.record_report(report, "continue")
    run.record_end(0, "completed")
    promote(run)
    return run
