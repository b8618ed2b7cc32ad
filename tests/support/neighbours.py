"""Recorded runs of small made-up trials, side by side, as a sweep finds them when it looks for a trial that it need not
train."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from fashion.record.run import Run
from fashion.record.trial import EpochReport
from fashion.spec.sweep_spec import SweepSpec

LOSSES = [0.9, 0.5, 0.7, 0.6]


def new_run(spec: SweepSpec, name: str, **changes: Any) -> Run:
    counts = {"train": [[3, 5]], "val": [[1, 1]]}
    attributes = [{"name": "fit", "classes": ["loose", "tight"]}]
    manifest = {"spec": spec.to_json(), "data_fingerprint": "f", "attributes": attributes, "label_counts": counts}
    return Run.create(spec.storage, name, {**manifest, **changes})


def train(run: Run, spec: SweepSpec, number: int, epochs: int = 4, backbone: str = "") -> Path:
    """Record a trial as the sweep does, with its files."""
    config = spec.trial(number).model_dump(mode="json")
    run.record_trial(number, config)
    run.record_attempt(number)
    for epoch, loss in enumerate(LOSSES[:epochs], start=1):
        metrics = {"val_loss": loss, "val_accuracy": 0.5, "val_accuracy/fit": 0.5}
        run.record_report(EpochReport(number, 1, epoch, 4, metrics, 1.0, "2026-01-01T00:00:00+00:00"), "continue")
    best = run.trials[number].best()
    assert best is not None
    meta = {"config": config, "data_fingerprint": "f", "report": best.to_json()}
    weights = run.checkpoint_path(number, best.epoch)
    weights.parent.mkdir(parents=True)
    if backbone:
        meta["backbone"] = backbone
        save_file({"backbone.w": np.ones(2, np.float32)}, weights.parent.parent / backbone, {"fashion": "{}"})
    save_file({"heads.0.weight": np.full(3, number, np.float32)}, weights, {"fashion": json.dumps(meta)})
    (weights.parent / f"val-{best.epoch:04d}.parquet").write_bytes(b"probabilities")
    return weights
