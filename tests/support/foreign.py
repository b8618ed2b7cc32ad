"""A real trial of a small network on any data set, without Ray: trained, recorded and promoted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fashion.config.trial import TrialConfig
from fashion.data.layout import read_dataset
from fashion.data.pack import Pack
from fashion.model.pretrained.resolved_weights import ResolvedWeights
from fashion.record.promote import promote
from fashion.record.run import Run
from fashion.training.feed import TrainingData
from fashion.training.loop import TrialInputs, fit


def promoted_run(root: Path, storage: Path, **data: Any) -> Run:
    """A run of one epoch at 24 px, which `fashion-sweep best --storage` finds."""
    dataset = read_dataset(root)
    sections = {
        "data": {"root": str(root), "resize": 24, "crop": 24, **data},
        "model": {"backbone": "tiny", "weights": "none"},
        "train": {"epochs": 1, "batch_size": 8, "lr": 0.01},
    }
    config = TrialConfig.model_validate(sections)
    counts = {name: [count.tolist() for count in dataset.label_counts(name)] for name in ("train", "val")}
    scheduler = {
        "name": "fifo",
        "metric": "val_loss",
        "compare": "fraction",
        "grace": 0.1,
        "reduction": 3,
        "brackets": 1,
    }
    manifest = {
        "spec": {**sections, "search": {"trials": 1}, "scheduler": scheduler},
        "data_root": str(root),
        "data_fingerprint": dataset.fingerprint(),
        "attributes": [{"name": each.name, "classes": list(each.classes)} for each in dataset.attributes],
        "label_counts": counts,
    }
    run = Run.create(storage, "foreign", manifest)
    run.record_trial(0, config.model_dump(mode="json"))
    run.record_attempt(0)
    train, val = (Pack.open_or_build(dataset, split, 24) for split in ("train", "val"))
    training = TrainingData(train, val, dataset.attributes, dataset.fingerprint())
    for report in fit(TrialInputs(config, training, ResolvedWeights("none"), run.trial_dir(0))):
        run.record_report(report, "continue")
    run.record_end(0, "completed")
    promote(run)
    run.close()
    return run
