"""A run of one real trial, recorded and promoted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fashion.config.trial import TrialConfig
from fashion.data.layout import Dataset, read_dataset
from fashion.data.pack import Pack
from fashion.model.pretrained.resolved_weights import ResolvedWeights
from fashion.record.promote import promote
from fashion.record.run import Run
from fashion.training.feed import TrainingData
from fashion.training.loop import TrialInputs, fit


def promoted_run(folder: Path, root: Path, data: dict[str, Any], train: dict[str, Any]) -> tuple[Run, Dataset]:
    """The tiny network trained on the data set at `root` and recorded below `folder`; and that data set."""
    dataset = read_dataset(root)
    config = TrialConfig.model_validate(
        {
            "data": {"root": str(root), "resize": 40, "crop": 32, **data},
            "model": {"backbone": "tiny", "weights": "none"},
            "train": {"epochs": 2, "batch_size": 16, "lr": 0.05, **train},
            "seed": 3,
        }
    )
    splits = ("train", "val")
    manifest = {
        "spec": {"data": {}, "model": {}, "train": {}, "search": {"trials": 1}},
        "data_root": str(root),
        "data_fingerprint": dataset.fingerprint(),
        "attributes": [{"name": each.name, "classes": list(each.classes)} for each in dataset.attributes],
        "label_counts": {split: [count.tolist() for count in dataset.label_counts(split)] for split in splits},
    }
    run = Run.create(folder, "sweep", manifest)
    run.record_trial(0, config.model_dump(mode="json"))
    run.record_attempt(0)
    packs = [Pack.open_or_build(dataset, split, *config.data.form) for split in splits]
    read = TrainingData(packs[0], packs[1], dataset.attributes, dataset.fingerprint())
    for report in fit(TrialInputs(config, read, ResolvedWeights("none"), run.trial_dir(0))):
        run.record_report(report, "continue")
    run.record_end(0, "completed")
    promote(run)
    return run, dataset
