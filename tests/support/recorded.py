"""Runs that are recorded without training."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from fashion.record.run import Run
from fashion.record.trial import EpochReport

ATTRIBUTES = [{"name": "sleeve", "classes": ["long", "short", "none"]}, {"name": "fit", "classes": ["tight", "loose"]}]


COUNTS = {"train": [[5, 2, 3], [8, 2]], "val": [[4, 3, 3], [6, 4]]}


SPEC: dict[str, Any] = {
    "data": {"root": "d"},
    "model": {"backbone": "tiny"},
    "train": {"epochs": 4, "lr": {"loguniform": [0.001, 1]}},
    "search": {"trials": 4},
    "scheduler": {
        "name": "asha",
        "metric": "val_loss",
        "compare": "fraction",
        "grace": 0.25,
        "reduction": 3.0,
        "brackets": 1,
    },
}


def record(run: Run, number: int, losses: list[float], decisions: str = "") -> None:
    config = {"data": {"root": "d"}, "model": {"backbone": "tiny"}, "train": {"epochs": 4, "lr": 0.01 * (number + 1)}}
    run.record_trial(number, config)
    run.record_attempt(number)
    for epoch, loss in enumerate(losses, start=1):
        metrics = {
            "val_loss": loss,
            "val_accuracy": 0.75,
            "val_exact_match": 0.5,
            "val_accuracy/sleeve": 0.8,
            "val_accuracy/fit": 0.7,
        }
        report = EpochReport(number, 1, epoch, 4, metrics, 1.5, "2026-01-01T00:00:00.000+00:00")
        run.record_report(report, "stop" if decisions[epoch - 1 : epoch] == "s" else "continue")
        folder = run.trial_dir(number)
        folder.mkdir(parents=True, exist_ok=True)
        meta = {
            "config": config,
            "data_fingerprint": "f",
            "report": report.to_json(),
            "attributes": ATTRIBUTES,
            "format": 1,
        }
        weights = {"w": np.full((2, 2), epoch, np.float32)}
        save_file(weights, folder / f"best-{epoch:04d}.safetensors", {"fashion": json.dumps(meta)})
